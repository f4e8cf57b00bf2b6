#include <cmath>
#include <iostream>
#include <span>

#include "experiments/commands.h"
#include "experiments/flags.h"
#include "experiments/interrupt.h"
#include "experiments/models.h"
#include "experiments/output_file.h"
#include "experiments/table.h"
#include "experiments/tuner.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Usage: specmoe tune --target FOLDER --drafter SPEC --prompts FILE [option]...

Which tree pays most for this target, this drafter and this kind of text. Runs short chains and stars of siblings beside
plain decoding, fits a cost model to them (bytes and operations of a target pass by the distinct experts that its rows
wake, time of a draft, acceptance along a chain and by rank), predicts chains of 1 to 16 tokens and fixed trees of up to
32 nodes, runs the best of both, and prints what was predicted beside what was measured.

At temperature 0 the drafter and the topology are replayed over the texts, without the target: that tells exactly what
every step drafts and accepts, also of trees that grow by what they see. A few small ones are predicted so, among them
expert_aware, which weighs every node by the fitted times, and the best three are run; with --tree, those and
expert_aware are predicted and run. Above temperature 0, for a policy that is not lossless, and for a drafter that goes by
more than the text, they are run without a prediction. --output FILE keeps every run of every prompt and a summary of
every tree, as bench does, with what was predicted of it.

Exit code: 0; 1 when a lossless method did not reproduce plain decoding's greedy text; 2 for a mistake in the call.

Example:
  specmoe tune --target experiments/models/target --drafter 'independent(path=experiments/models/drafter)' \
      --prompts experiments/models/prompts/quickstart.jsonl --max-new-tokens 64
)";

std::string joined(const std::vector<double>& values, int digits) {
  std::string text;
  for (const double value : values) text += concat(text.empty() ? "" : " ", fixed(value, digits));
  return text.empty() ? "-" : text;
}

std::string error_text(double predicted, double measured) {
  const double percent = std::round(100 * (predicted / measured - 1));
  return concat(percent < 0 ? "-" : "+", fixed(std::abs(percent), 0), " %");
}

void print_setting(const RunOptions& options, const Tuner& tuner) {
  const BenchCell& cell = tuner.probes()[0].cell;
  Table table(2);
  table.row({"target", concat(cell.target.name, ", ", cell.summary.dtype)});
  table.row({"machine", concat(cell.target.device, ", ", cell.target.instruction_set, ", ", cell.threads, " threads")});
  table.row({"drafter", cell.summary.spec.drafter});
  table.row({"prompts", concat(options.prompts.size(), " x up to ", options.max_new_tokens, " tokens, batch ",
                               options.batches[0], ", temperature ", options.temperatures[0])});
  table.print(std::cout);
}

void print_model(const Tuner& tuner) {
  const SpeedupModel& model = tuner.model();
  std::vector<double> costs, speedups;
  for (const int nodes : {1, 3, 7, 15}) costs.push_back(model.cost_ratio(nodes));
  for (const Prediction& chain : tuner.chains()) speedups.push_back(chain.speedup);
  Table table(2);
  table.row({"plain token", fixed(1e6 * model.plain_seconds(), 1) + " us"});
  table.row({"draft of 1 token, of 4",
             fixed(1e6 * model.draft_seconds(1, 1), 1) + " and " + fixed(1e6 * model.draft_seconds(4, 4), 1) + " us"});
  table.row({"r(T) at T = 2, 4, 8, 16", joined(costs, 2)});
  if (!std::isnan(model.routing_correlation())) {
    table.row({"routing correlation", fixed(model.routing_correlation(), 2)});
  }
  table.row({"accepted by rank", joined(tuner.rates(), 2)});
  table.row({"speed-up of chains, 1, 2, ..", joined(speedups, 2)});
  std::cout << "\nfitted\n";
  table.print(std::cout);
}

std::vector<std::string> expected_row(const Candidate& tree) {
  if (!tree.expected) return {"  " + tree.name, "-", "-", "-"};
  return {"  " + tree.name, fixed(tree.expected->tau, 2), fixed(tree.expected->cost, 2),
          fixed(tree.expected->speedup, 2)};
}

std::vector<std::string> tree_row(const TunedTree& tree) {
  const BenchSummary& summary = tree.cell.summary;
  const double tau = derive(summary.speculative, tree.cell.target.experts_per_token).tau;
  const double cost = verify_cost_ratio(summary.speculative, summary.plain);
  const std::string off = tree.expected ? error_text(tree.expected->speedup, tree.speedup()) : "-";
  std::vector<std::string> row = expected_row(tree);
  row.insert(row.end(), {fixed(tau, 2), fixed(cost, 2), fixed(tree.speedup(), 2), off, interval_text(summary.speedup)});
  return row;
}

void print_trees(const Tuner& tuner) {
  Table table;
  table.row({"", "predicted", "", "", "measured", "", "", "", "over prompts"});
  table.row({"tree", "tau", "r(T)", "speed-up", "tau", "r(T)", "speed-up", "off by", "median [95 %]"});
  const auto add = [&](const char* title, std::span<const TunedTree> trees) {
    table.row({title});
    for (const TunedTree& tree : trees) {
      if (tree.ran()) table.row(tree_row(tree));
    }
  };
  add("fitted to", tuner.probes());
  add("chosen, and others", tuner.chosen());
  if (!tuner.passed_over().empty()) table.row({"passed over"});
  for (const Candidate& tree : tuner.passed_over()) table.row(expected_row(tree));
  std::cout << '\n';
  table.print(std::cout);
  for (const TunedTree& tree : tuner.trees()) {
    if (!tree.ran()) std::cout << "not run: " << tree.name << ": " << tree.cell.failure << '\n';
  }
  if (!tuner.why_not_replayed().empty()) std::cout << "not replayed: " << tuner.why_not_replayed() << '\n';
  std::cout << "\n  tau       emitted tokens / steps"
               "\n  r(T)      time of a target pass / time of a plain one"
               "\n  speed-up  tokens per second / those of plain decoding, all prompts together\n";
}

/// Whether all texts are what they should be; says so.
bool print_agreement(const Tuner& tuner) {
  bool kept = true, greedy = false;
  for (const TunedTree& tree : tuner.trees()) {
    const BenchSummary& summary = tree.cell.summary;
    if (!tree.ran()) continue;
    greedy |= summary.identical.has_value();
    if (summary.difference.empty()) continue;
    kept &= !summary.lossless && summary.identical.has_value();
    std::cout << "\noutputs differ, " << tree.name << ": " << summary.difference;
  }
  if (kept) std::cout << (greedy ? "\noutputs identical: yes" : "\noutputs: sampled, the same in every run");
  std::cout << '\n';
  return kept;
}

void print_answer(const Tuner& tuner) {
  const TunedTree* fastest = tuner.fastest();
  std::cout << "\nfastest: ";
  if (fastest == nullptr) {
    std::cout << "plain decoding\n";
  } else {
    std::cout << "--tree '" << fastest->name << "', " << fixed(fastest->speedup(), 2) << " times plain decoding\n";
  }
}

}  // namespace

int run_tune(const std::vector<std::string>& arguments) {
  if (wants_help(arguments)) {
    std::cout << kHelp << help_text(Command::kTune);
    return 0;
  }
  const Settings settings = Settings::parse(Command::kTune, arguments);
  const RunOptions options = run_options(Command::kTune, settings);
  OutputFile output(options.output);
  Progress progress(options.quiet);
  const Models models = open_models(options, options.dtypes[0], progress);
  Tuner tuner(options, models, {output, progress, poll_interrupt});
  tuner.run();
  progress.clear();
  const Provenance provenance = collect_provenance();
  for (const TunedTree& tree : tuner.trees()) output.line(line_of(tree, provenance, settings.json()));
  output.commit();
  print_setting(options, tuner);
  const bool kept = print_agreement(tuner);
  print_model(tuner);
  print_trees(tuner);
  print_answer(tuner);
  if (!options.output.empty()) std::cout << "\nresults: " << options.output << '\n';
  return kept ? 0 : 1;
}

}  // namespace specmoe::cli
