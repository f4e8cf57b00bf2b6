#include "experiments/bench_report.h"

#include <algorithm>
#include <ostream>

#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

std::string percent(double share) { return fixed(100 * share, 0); }

std::string split_text(const Metrics& metrics) {
  return percent(metrics.draft_share) + " / " + percent(metrics.verify_share) + " / " + percent(metrics.judge_share) +
         " / " + percent(metrics.rest_share) + " %";
}

std::string interval_text(const Interval& interval) {
  return fixed(interval.median, 2) + " [" + fixed(interval.low, 2) + ", " + fixed(interval.high, 2) + "]";
}

std::string positions_text(const Metrics& metrics) {
  std::string text;
  for (double rate : metrics.acceptance_per_position) {
    if (!text.empty()) text += ' ';
    text += fixed(rate, 2);
  }
  return text.empty() ? "-" : text;
}

std::string agreement(const BenchCell& cell) {
  if (!cell.difference.empty()) return "NO";
  return cell.summary.identical ? "yes" : "sampled";
}

void print_setting(std::ostream& out, const RunOptions& options, const Models& models) {
  const ModelInfo& info = models.target->info();
  Table table(2);
  table.row({"target", info.name + ": " + info.architecture + ", " + with_unit(double(info.parameters)) +
                           " parameters, " + with_unit(double(info.active_parameters)) + " active, " + info.dtype});
  table.row(
      {"machine", info.device + ", " + info.instruction_set + ", " + std::to_string(models.pool->size()) + " threads"});
  table.row({"prompts", concat(options.prompts.size(), " x up to ", options.max_new_tokens, " tokens, batch ",
                               options.batch, ", ", 2 * options.repeat, " interleaved runs of each method")});
  table.print(out);
}

void print_agreement(std::ostream& out, const BenchCell& cell) {
  if (cell.summary.identical) {
    out << "outputs identical: " << (*cell.summary.identical ? "yes" : "NO") << '\n';
  } else {
    out << "outputs: sampled, so not compared with plain decoding; the same seed gave the same text in every run: "
        << (cell.difference.empty() ? "yes" : "NO") << '\n';
  }
  if (!cell.difference.empty()) out << "  first difference: " << cell.difference << '\n';
}

void print_single(std::ostream& out, const BenchCell& cell, int experts_per_token) {
  const BenchSummary& summary = cell.summary;
  const Metrics plain = derive(summary.plain, experts_per_token);
  const Metrics fast = derive(summary.speculative, experts_per_token);
  Table method(2);
  method.row({"drafter", summary.spec.drafter});
  method.row({"tree", summary.spec.tree});
  method.row({"accept", summary.spec.acceptance + (summary.lossless ? " (lossless)" : " (LOSSY)")});
  method.row({"temperature", concat(summary.sampling.temperature)});
  method.print(out);
  out << '\n';
  print_agreement(out, cell);
  out << '\n';
  Table table;
  table.row({"", "plain", "speculative"});
  table.row({"tokens/s", fixed(plain.tokens_per_s, 1), fixed(fast.tokens_per_s, 1)});
  table.row({"speed-up, median [95 %]", "1", interval_text(summary.speedup)});
  table.row({"tau", fixed(plain.tau, 2), fixed(fast.tau, 2)});
  table.row({"acceptance rate (alpha)", "-", fixed(fast.acceptance_rate, 2)});
  table.row({"acceptance at position 1, 2, ..", "-", positions_text(fast)});
  table.row({"draft efficiency", "-", fixed(fast.draft_efficiency, 2)});
  if (experts_per_token > 0) {
    table.row({"unique experts per step", fixed(plain.unique_experts, 2), fixed(fast.unique_experts, 2)});
    table.row({"union ratio", fixed(plain.union_ratio, 2), fixed(fast.union_ratio, 2)});
  }
  table.row({"verify cost ratio r(T)", "1", fixed(verify_cost_ratio(summary.speculative, summary.plain), 2)});
  table.row({"time: draft / verify / judge / rest", split_text(plain), split_text(fast)});
  table.print(out);
}

void print_grid(std::ostream& out, const std::vector<BenchCell>& cells, int experts_per_token) {
  const std::string& drafter = cells[0].summary.spec.drafter;
  const bool one_drafter = std::all_of(cells.begin(), cells.end(),
                                       [&](const BenchCell& cell) { return cell.summary.spec.drafter == drafter; });
  if (one_drafter) out << "drafter  " << drafter << "\n\n";
  Table table(3);
  table.row({one_drafter ? "" : "drafter", "tree", "accept", "T", "identical", "plain t/s", "t/s", "speed-up [95 %]",
             "tau", "alpha", "experts", "union", "r(T)", "draft/verify/judge/rest"});
  for (const BenchCell& cell : cells) {
    if (!cell.failure.empty()) continue;
    const BenchSummary& summary = cell.summary;
    const Metrics fast = derive(summary.speculative, experts_per_token);
    table.row({one_drafter ? "" : summary.spec.drafter, summary.spec.tree,
               summary.spec.acceptance + (summary.lossless ? "" : " (LOSSY)"), concat(summary.sampling.temperature),
               agreement(cell), fixed(derive(summary.plain, experts_per_token).tokens_per_s, 1),
               fixed(fast.tokens_per_s, 1), interval_text(summary.speedup), fixed(fast.tau, 2),
               fixed(fast.acceptance_rate, 2), fixed(fast.unique_experts, 2), fixed(fast.union_ratio, 2),
               fixed(verify_cost_ratio(summary.speculative, summary.plain), 2), split_text(fast)});
  }
  for (const BenchCell& cell : cells) {
    if (cell.difference.empty()) continue;
    out << "outputs differ, " << cell.summary.spec.drafter << " " << cell.summary.spec.tree << " "
        << cell.summary.spec.acceptance << ", temperature " << cell.summary.sampling.temperature << ": "
        << cell.difference << '\n';
  }
  table.print(out);
  const bool sampled = std::any_of(cells.begin(), cells.end(),
                                   [](const BenchCell& cell) { return cell.summary.sampling.temperature > 0; });
  if (sampled) out << "sampled: not compared with plain decoding; the same seed gave the same text in every run\n";
  for (const BenchCell& cell : cells) {
    if (cell.failure.empty()) continue;
    const EngineSpec& spec = cell.summary.spec;
    out << "not run: " << spec.drafter << " " << spec.tree << " " << spec.acceptance << ", temperature "
        << cell.summary.sampling.temperature << ": " << cell.failure << '\n';
  }
}

void print_definitions(std::ostream& out) {
  Table table(2);
  for (const auto& [name, definition] : metric_definitions()) table.row({"  " + name, definition});
  out << '\n';
  table.print(out);
}

}  // namespace

void print_texts(std::ostream& out, const RunOptions& options, const Models& models, const BenchCell& cell) {
  for (std::size_t i = 0; i < cell.texts.size(); ++i) {
    out << "== " << options.prompts[i].id << " ==\n" << options.prompts[i].text;
    print_record(out, options.mark, models.tokenizer, options.stops, cell.texts[i]);
    out << "\n\n";
  }
}

void print_report(std::ostream& out, const RunOptions& options, const Models& models,
                  const std::vector<BenchCell>& cells) {
  const int experts_per_token = models.target->info().experts_per_token;
  print_setting(out, options, models);
  if (cells.size() == 1) {
    print_single(out, cells[0], experts_per_token);
  } else {
    out << '\n';
    print_grid(out, cells, experts_per_token);
  }
  print_definitions(out);
}

}  // namespace specmoe::cli
