#include <algorithm>
#include <iostream>

#include "core/provenance.h"
#include "core/results.h"
#include "experiments/bench_report.h"
#include "experiments/bench_run.h"
#include "experiments/commands.h"
#include "experiments/interrupt.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Usage: specmoe bench --target FOLDER --drafter SPEC --prompts FILE [option]...

Decodes every prompt plainly and speculatively, taking turns in one process, compares the texts, and prints speeds and
what explains them: tokens per pass, acceptance by position, distinct experts, cost of a verify pass, where time goes.
--drafter, --tree, --accept and --temperature take lists, separated by commas or semicolons: every combination is one
line of the table, and those that cannot run are named underneath. With --output, every run is one line of JSON, and
one summary line per combination ends the file.

Exit code: 0; 1 when a lossless method did not reproduce plain decoding's greedy text; 2 for a mistake in the call.

Examples:
  specmoe bench --target experiments/models/target --drafter 'independent(path=experiments/models/drafter)' \
      --prompts experiments/models/prompts/quickstart.jsonl --output bench.jsonl
  specmoe bench --target M --drafter 'independent(path=D); ngram' --tree 'chain(gamma=2), chain(gamma=4), expansion(2,2)' \
      --temperature 0,1 --prompts questions.jsonl --max-new-tokens 64
)";

bool broke_a_promise(const BenchCell& cell) {
  const bool greedy = cell.summary.identical.has_value();
  return !cell.difference.empty() && (cell.summary.lossless || !greedy);
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
  const Provenance provenance = collect_provenance();
  Progress progress(options.quiet);
  const Models models = open_models(options, progress);
  const bool several_turns = std::any_of(options.prompts.begin(), options.prompts.end(),
                                         [](const Prompt& prompt) { return prompt.turns > 1; });
  if (several_turns) progress.say("some questions have several turns: only the first turn of each is used");

  const std::vector<BenchCell> cells = run_grid(options, models, output, progress);
  for (const BenchCell& cell : cells) {
    output.line(cell.failure.empty() ? summary_json(cell.summary, models.target->info(), models.pool->size(),
                                                    provenance, settings.json())
                                     : failure_json(cell.summary.spec, cell.summary.sampling, cell.failure));
  }
  output.commit();
  if (options.show_text) print_texts(std::cout, options, models, cells[0]);
  print_report(std::cout, options, models, cells);
  if (!options.output.empty()) std::cout << "\nresults: " << options.output << '\n';
  std::cout.flush();
  return std::any_of(cells.begin(), cells.end(), broke_a_promise) ? 1 : 0;
}

}  // namespace specmoe::cli
