#include <algorithm>
#include <iostream>

#include "experiments/bench_grid.h"
#include "experiments/bench_report.h"
#include "experiments/commands.h"
#include "experiments/flags.h"
#include "experiments/interrupt.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Usage: specmoe bench --target FOLDER --drafter SPEC --prompts FILE [option]...

Decodes every prompt plainly and speculatively, taking turns in one process, compares the texts, and prints speeds and
what explains them: tokens per pass, acceptance by position, distinct experts, cost of a verify pass, where time goes.
--drafter, --tree, --accept, --temperature, --batch, --dtype and --category take lists, separated by commas or semicolons:
every combination is a cell, one line of the table, and cells that cannot run are named underneath. --cells FILE appends a
line of JSON per cell as soon as it is measured; the same command goes on there after an interruption. With --output, every
run of every prompt is one line of JSON, and one summary line per cell ends the file. With --chat, the later turns of a
question are asked too, after plain decoding's answers to the earlier ones, the same for every method.

Exit code: 0; 1 when a lossless method did not reproduce plain decoding's greedy text; 2 for a mistake in the call.

Examples:
  specmoe bench --target experiments/models/target --drafter 'independent(path=experiments/models/drafter)' \
      --prompts experiments/models/prompts/quickstart.jsonl --output bench.jsonl
  specmoe bench --target M --drafter 'independent(path=D); ngram' --tree 'chain(gamma=2), chain(gamma=4), expansion(2,2)' \
      --temperature 0,1 --prompts questions.jsonl --max-new-tokens 64
)";

bool broke_a_promise(const BenchCell& cell) {
  const bool greedy = cell.summary.identical.has_value();
  return !cell.summary.difference.empty() && (cell.summary.lossless || !greedy);
}

}  // namespace

int run_bench(const std::vector<std::string>& arguments) {
  if (wants_help(arguments)) {
    std::cout << kHelp << help_text(Command::kBench);
    return 0;
  }
  const Settings settings = Settings::parse(Command::kBench, arguments);
  const RunOptions options = run_options(Command::kBench, settings);
  OutputFile output(options.output);
  Progress progress(options.quiet);
  const std::vector<BenchCell> cells = run_grid(settings, options, {output, progress, poll_interrupt});
  for (const BenchCell& cell : cells) output.line(cell.line);
  output.commit();
  if (options.show_text) print_texts(std::cout, options, cells[0]);
  print_report(std::cout, options, cells);
  if (!options.output.empty()) std::cout << "\nresults: " << options.output << '\n';
  if (!options.cells.empty()) std::cout << "\ncells: " << options.cells << '\n';
  std::cout.flush();
  return std::any_of(cells.begin(), cells.end(), broke_a_promise) ? 1 : 0;
}

}  // namespace specmoe::cli
