#include "experiments/cell_line.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/check.h"

namespace specmoe::cli {
namespace {

using Json = nlohmann::json;

Counts counts_from(const Json& json) {
  Counts counts;
  json.at("requests").get_to(counts.requests);
  json.at("steps").get_to(counts.steps);
  json.at("drafted").get_to(counts.drafted);
  json.at("accepted").get_to(counts.accepted);
  json.at("rejected").get_to(counts.rejected);
  json.at("unjudged").get_to(counts.unjudged);
  json.at("emitted").get_to(counts.emitted);
  json.at("truncated").get_to(counts.truncated);
  json.at("pass_rows").get_to(counts.pass_rows);
  json.at("drafted_at").get_to(counts.drafted_at);
  json.at("judged_at").get_to(counts.judged_at);
  json.at("accepted_at").get_to(counts.accepted_at);
  json.at("unique_experts").get_to(counts.unique_experts);
  json.at("draft_ns").get_to(counts.times.draft_ns);
  json.at("verify_ns").get_to(counts.times.verify_ns);
  json.at("judge_ns").get_to(counts.times.judge_ns);
  json.at("rest_ns").get_to(counts.times.rest_ns);
  json.at("prefill_ns").get_to(counts.prefill_ns);
  return counts;
}

/// A rate without a denominator is null.
double real_from(const Json& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}

void read_settings(const Json& json, BenchSummary& summary) {
  json.at("cell").get_to(summary.cell);
  json.at("dtype").get_to(summary.dtype);
  json.at("category").get_to(summary.category);
  json.at("batch").get_to(summary.batch);
  json.at("drafter").get_to(summary.spec.drafter);
  json.at("tree").get_to(summary.spec.tree);
  json.at("acceptance").get_to(summary.spec.acceptance);
  json.at("temperature").get_to(summary.sampling.temperature);
  json.at("top_k").get_to(summary.sampling.top_k);
  json.at("top_p").get_to(summary.sampling.top_p);
  // Cells from before there were such are of their defaults.
  summary.sampling.min_p = json.value("min_p", 0.0);
  summary.sampling.repetition_penalty = json.value("repetition_penalty", 1.0);
  summary.sampling.presence_penalty = json.value("presence_penalty", 0.0);
  summary.sampling.frequency_penalty = json.value("frequency_penalty", 0.0);
  json.at("seed").get_to(summary.sampling.seed);
}

void read_figures(const Json& json, BenchSummary& summary) {
  json.at("lossless").get_to(summary.lossless);
  json.at("prompts").get_to(summary.prompts);
  json.at("runs").get_to(summary.runs);
  summary.plain = counts_from(json.at("plain_counts"));
  summary.speculative = counts_from(json.at("counts"));
  for (const Json& value : json.at("speedup_per_group")) summary.speedups.push_back(real_from(value));
  const Json& speedup = json.at("speedup");
  summary.speedup = {real_from(speedup.at("median")), real_from(speedup.at("low")), real_from(speedup.at("high"))};
  if (!json.at("identical").is_null()) summary.identical = json.at("identical").get<bool>();
  json.at("difference").get_to(summary.difference);
}

void read_target(const Json& json, ModelInfo& target) {
  const Json& own = json.at("target");
  own.at("name").get_to(target.name);
  own.at("architecture").get_to(target.architecture);
  own.at("parameters").get_to(target.parameters);
  own.at("active_parameters").get_to(target.active_parameters);
  own.at("experts").get_to(target.experts);
  own.at("experts_per_token").get_to(target.experts_per_token);
  const Json& origin = json.at("provenance");
  origin.at("dtype").get_to(target.dtype);
  target.kv_dtype = origin.value("kv_dtype", "float32");  // cells from before there was a choice
  origin.at("device").get_to(target.device);
  origin.at("instruction_set").get_to(target.instruction_set);
}

}  // namespace

std::string line_of(const BenchCell& cell, const Provenance& provenance, const std::string& config_json) {
  if (!cell.failure.empty()) return failure_json(cell.summary, cell.failure);
  return summary_json(cell.summary, cell.target, cell.threads, provenance, config_json);
}

BenchCell cell_from_line(const std::string& line) {
  BenchCell cell;
  cell.line = line;
  try {
    const Json json = Json::parse(line);
    read_settings(json, cell.summary);
    if (json.at("kind") == "failed") {
      json.at("error").get_to(cell.failure);
      return cell;
    }
    read_figures(json, cell.summary);
    read_target(json, cell.target);
    json.at("provenance").at("threads").get_to(cell.threads);
  } catch (const Json::exception& error) {
    fail("--cells: a cell of this version lacks something: ", error.what());
  }
  return cell;
}

}  // namespace specmoe::cli
