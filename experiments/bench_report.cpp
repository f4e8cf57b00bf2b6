#include "experiments/bench_report.h"

#include <algorithm>
#include <functional>
#include <ostream>

#include "core/nn/tokenizer.h"
#include "experiments/marked_text.h"
#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

std::string percent(double share) { return fixed(100 * share, 0); }

std::string split_text(const Metrics& metrics) {
  return percent(metrics.draft_share) + " / " + percent(metrics.verify_share) + " / " + percent(metrics.judge_share) +
         " / " + percent(metrics.rest_share) + " %";
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
  if (!cell.summary.difference.empty()) return "NO";
  return cell.summary.identical ? "yes" : "sampled";
}

template <class Value>
std::string joined(const std::vector<Value>& values) {
  std::string text;
  for (const Value& value : values) text += (text.empty() ? "" : ", ") + concat(value);
  return text;
}

const BenchCell& first_measured(const std::vector<BenchCell>& cells) {
  return *std::find_if(cells.begin(), cells.end(), [](const BenchCell& cell) { return cell.failure.empty(); });
}

void print_setting(std::ostream& out, const RunOptions& options, const std::vector<BenchCell>& cells) {
  const BenchCell& cell = first_measured(cells);
  const ModelInfo& info = cell.target;
  Table table(2);
  table.row({"target", info.name + ": " + info.architecture + ", " + with_unit(double(info.parameters)) +
                           " parameters, " + with_unit(double(info.active_parameters)) + " active, " +
                           joined(options.dtypes) + (info.kv_dtype == "float32" ? "" : ", cache " + info.kv_dtype)});
  table.row({"machine", info.device + ", " + info.instruction_set + ", " + std::to_string(cell.threads) + " threads"});
  table.row({"prompts", concat(options.prompts.size(), " x up to ", options.max_new_tokens, " tokens, batch ",
                               joined(options.batches), ", ", 2 * options.repeat, " interleaved runs of each method")});
  table.print(out);
}

void print_agreement(std::ostream& out, const BenchCell& cell) {
  if (cell.summary.identical) {
    out << "outputs identical: " << (*cell.summary.identical ? "yes" : "NO") << '\n';
  } else {
    out << "outputs: sampled, so not compared with plain decoding; the same seed gave the same text in every run: "
        << (cell.summary.difference.empty() ? "yes" : "NO") << '\n';
  }
  if (!cell.summary.difference.empty()) out << "  first difference: " << cell.summary.difference << '\n';
}

void print_single(std::ostream& out, const BenchCell& cell) {
  const BenchSummary& summary = cell.summary;
  const int experts_per_token = cell.target.experts_per_token;
  const Metrics plain = derive(summary.plain, experts_per_token);
  const Metrics fast = derive(summary.speculative, experts_per_token);
  Table method(2);
  method.row({"drafter", summary.spec.drafter});
  method.row({"tree", summary.spec.tree});
  method.row({"accept", summary.spec.acceptance + (summary.lossless ? " (lossless)" : " (LOSSY)")});
  method.row({"temperature", concat(summary.sampling.temperature)});
  if (!cell.step_leader.empty()) method.row({"steps", cell.step_leader});
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

/// A column of the grid that is shown only where cells differ in it.
struct Axis {
  std::string name;
  std::function<std::string(const BenchSummary&)> of;
};

std::vector<Axis> axes_that_vary(const std::vector<BenchCell>& cells) {
  std::vector<Axis> axes = {
      {"dtype", [](const BenchSummary& cell) { return cell.dtype; }},
      {"class", [](const BenchSummary& cell) { return cell.category; }},
      {"batch", [](const BenchSummary& cell) { return concat(cell.batch); }},
      {"drafter", [](const BenchSummary& cell) { return cell.spec.drafter; }},
  };
  std::erase_if(axes, [&](const Axis& axis) {
    return std::all_of(cells.begin(), cells.end(),
                       [&](const BenchCell& cell) { return axis.of(cell.summary) == axis.of(cells[0].summary); });
  });
  return axes;
}

std::string name_of(const BenchSummary& cell) {
  return concat(cell.spec.drafter, " ", cell.spec.tree, " ", cell.spec.acceptance, ", temperature ",
                cell.sampling.temperature, ", ", cell.dtype, ", batch ", cell.batch, ", ", cell.category);
}

std::vector<std::string> grid_row(const BenchCell& cell) {
  const BenchSummary& summary = cell.summary;
  const int experts_per_token = cell.target.experts_per_token;
  const Metrics fast = derive(summary.speculative, experts_per_token);
  return {summary.spec.tree,
          summary.spec.acceptance + (summary.lossless ? "" : " (LOSSY)"),
          concat(summary.sampling.temperature),
          agreement(cell),
          fixed(derive(summary.plain, experts_per_token).tokens_per_s, 1),
          fixed(fast.tokens_per_s, 1),
          interval_text(summary.speedup),
          fixed(fast.tau, 2),
          fixed(fast.acceptance_rate, 2),
          fixed(fast.unique_experts, 2),
          fixed(fast.union_ratio, 2),
          fixed(verify_cost_ratio(summary.speculative, summary.plain), 2),
          split_text(fast)};
}

void print_rows(std::ostream& out, const std::vector<BenchCell>& cells) {
  const std::vector<Axis> axes = axes_that_vary(cells);
  Table table(static_cast<int>(axes.size()) + 2);
  const auto add = [&](std::vector<std::string> row, const std::function<std::string(const Axis&)>& head) {
    std::vector<std::string> front;
    for (const Axis& axis : axes) front.push_back(head(axis));
    row.insert(row.begin(), front.begin(), front.end());
    table.row(std::move(row));
  };
  add({"tree", "accept", "T", "identical", "plain t/s", "t/s", "speed-up [95 %]", "tau", "alpha", "experts", "union",
       "r(T)", "draft/verify/judge/rest"},
      [](const Axis& axis) { return axis.name; });
  for (const BenchCell& cell : cells) {
    if (cell.failure.empty()) add(grid_row(cell), [&](const Axis& axis) { return axis.of(cell.summary); });
  }
  table.print(out);
}

void print_grid(std::ostream& out, const std::vector<BenchCell>& cells) {
  const std::string& drafter = cells[0].summary.spec.drafter;
  const bool one_drafter = std::all_of(cells.begin(), cells.end(),
                                       [&](const BenchCell& cell) { return cell.summary.spec.drafter == drafter; });
  if (one_drafter) out << "drafter  " << drafter << "\n\n";
  for (const BenchCell& cell : cells) {
    if (cell.summary.difference.empty()) continue;
    out << "outputs differ, " << name_of(cell.summary) << ": " << cell.summary.difference << '\n';
  }
  print_rows(out, cells);
  const bool sampled = std::any_of(cells.begin(), cells.end(),
                                   [](const BenchCell& cell) { return cell.summary.sampling.temperature > 0; });
  if (sampled) out << "sampled: not compared with plain decoding; the same seed gave the same text in every run\n";
  for (const BenchCell& cell : cells) {
    if (!cell.failure.empty()) out << "not run: " << name_of(cell.summary) << ": " << cell.failure << '\n';
  }
}

void print_definitions(std::ostream& out) {
  Table table(2);
  for (const auto& [name, definition] : metric_definitions()) table.row({"  " + name, definition});
  out << '\n';
  table.print(out);
}

}  // namespace

void print_texts(std::ostream& out, const RunOptions& options, const BenchCell& cell) {
  if (cell.texts.empty()) return;
  const auto tokenizer = nn::Tokenizer::from_file(options.target);
  for (const RequestRecord& text : cell.texts) {
    const auto prompt = std::find_if(options.prompts.begin(), options.prompts.end(),
                                     [&](const Prompt& prompt) { return prompt.id == text.id; });
    out << "== " << text.id << " ==\n" << prompt->text;
    print_record(out, options.mark, tokenizer, options.stops, text);
    out << "\n\n";
  }
}

void print_report(std::ostream& out, const RunOptions& options, const std::vector<BenchCell>& cells) {
  print_setting(out, options, cells);
  if (cells.size() == 1) {
    print_single(out, cells[0]);
  } else {
    out << '\n';
    print_grid(out, cells);
  }
  print_definitions(out);
}

}  // namespace specmoe::cli
