#include "core/results.h"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

namespace specmoe {
namespace {

using Json = nlohmann::ordered_json;

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// Spec-Bench numbers its questions: an id that is a whole number is written as one.
Json id_of(const std::string& id) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
  const bool whole = error == std::errc() && end == id.data() + id.size() && std::to_string(number) == id;
  return whole ? Json(number) : Json(id);
}

double milliseconds(std::int64_t ns) { return static_cast<double>(ns) * 1e-6; }
double microseconds(std::int64_t ns) { return static_cast<double>(ns) * 1e-3; }

/// One value per step.
template <class Value>
Json per_step(const RequestRecord& record, Value value) {
  Json list = Json::array();
  for (const StepRecord& step : record.steps) list.push_back(value(step));
  return list;
}

Json choice(const RequestRecord& record, const std::string& text, const Counts& counts) {
  const double seconds = static_cast<double>(counts.prefill_ns + counts.times.total_ns()) * 1e-9;
  return {{"index", 0},
          {"turns", {text}},
          {"decoding_steps", {counts.steps}},
          {"new_tokens", {counts.emitted}},
          {"wall_time", {seconds}},
          {"accept_lengths", per_step(record, [](const StepRecord& step) { return step.emitted; })}};
}

Json positions(const Counts& counts, const Metrics& metrics) {
  return {{"drafted_by_position", counts.drafted_at},
          {"judged_by_position", counts.judged_at},
          {"accepted_by_position", counts.accepted_at},
          {"acceptance_per_position", metrics.acceptance_per_position},
          {"reached_per_position", metrics.reached_per_position}};
}

Json totals(const Counts& counts, const Metrics& metrics) {
  return {{"num_spec_steps", counts.steps},
          {"num_draft_tokens", counts.drafted},
          {"num_accepted_draft_tokens", counts.accepted},
          {"num_rejected_draft_tokens", counts.rejected},
          {"num_unjudged_draft_tokens", counts.unjudged},
          {"num_emitted_tokens", counts.emitted},
          {"num_truncated_tokens", counts.truncated},
          {"mean_acceptance_length", metrics.tau},
          {"acceptance_rate", metrics.acceptance_rate},
          {"draft_acceptance_rate", metrics.draft_efficiency},
          {"tokens_per_s", metrics.tokens_per_s}};
}

Json stage_times(const Counts& counts) {
  return {{"prefill", milliseconds(counts.prefill_ns)},     {"draft", milliseconds(counts.times.draft_ns)},
          {"verify", milliseconds(counts.times.verify_ns)}, {"judge", milliseconds(counts.times.judge_ns)},
          {"rest", milliseconds(counts.times.rest_ns)},     {"total", milliseconds(counts.times.total_ns())}};
}

Json steps_of(const RequestRecord& record) {
  Json experts = Json::array();
  for (std::size_t s = 0; s < record.steps.size() && record.moe_layers > 0; ++s) {
    const auto first = record.unique_experts.begin() + static_cast<std::ptrdiff_t>(s * record.moe_layers);
    experts.push_back(std::vector<std::int32_t>(first, first + record.moe_layers));
  }
  return {{"per_step_drafted", per_step(record, [](const StepRecord& step) { return step.drafted; })},
          {"per_step_accepted", per_step(record, [](const StepRecord& step) { return step.accepted; })},
          {"per_step_rows", per_step(record, [](const StepRecord& step) { return step.pass_rows; })},
          {"per_step_unique_experts", std::move(experts)},
          {"per_step_draft_us", per_step(record, [](const StepRecord& s) { return microseconds(s.times.draft_ns); })},
          {"per_step_verify_us", per_step(record, [](const StepRecord& s) { return microseconds(s.times.verify_ns); })},
          {"per_step_judge_us", per_step(record, [](const StepRecord& s) { return microseconds(s.times.judge_ns); })},
          {"per_step_rest_us", per_step(record, [](const StepRecord& s) { return microseconds(s.times.rest_ns); })}};
}

Json sampling_of(const SamplingParams& sampling) {
  return {{"temperature", sampling.temperature},
          {"top_k", sampling.top_k},
          {"top_p", sampling.top_p},
          {"min_p", sampling.min_p},
          {"repetition_penalty", sampling.repetition_penalty},
          {"presence_penalty", sampling.presence_penalty},
          {"frequency_penalty", sampling.frequency_penalty},
          {"seed", sampling.seed}};
}

Json method_of(const EngineSpec& spec) {
  return {{"method", spec.drafter.empty() ? "plain" : "speculative"},
          {"drafter", spec.drafter},
          {"tree", spec.drafter.empty() ? "" : spec.tree},
          {"acceptance", spec.drafter.empty() ? "" : spec.acceptance}};
}

Json provenance_of(const Provenance& provenance) {
  return {{"commit", provenance.commit},
          {"compiler", provenance.compiler},
          {"cpu", provenance.cpu},
          {"cores", provenance.cores},
          {"started", provenance.started}};
}

Json provenance_of(const Provenance& provenance, const ModelInfo& target, int threads, const SamplingParams& sampling,
                   const std::string& config_json) {
  Json fields = provenance_of(provenance);
  fields["instruction_set"] = target.instruction_set;
  fields["device"] = target.device;
  fields["threads"] = threads;
  fields["dtype"] = target.dtype;
  fields["kv_dtype"] = target.kv_dtype;
  fields["seed"] = sampling.seed;
  fields["config"] = Json::parse(config_json);
  return fields;
}

Json cell_of(const BenchSummary& summary) {
  Json line = {
      {"cell", summary.cell}, {"dtype", summary.dtype}, {"batch", summary.batch}, {"category", summary.category}};
  line.update(method_of(summary.spec));
  line.update(sampling_of(summary.sampling));
  return line;
}

Json target_of(const ModelInfo& target) {
  return {{"name", target.name},
          {"architecture", target.architecture},
          {"parameters", target.parameters},
          {"active_parameters", target.active_parameters},
          {"experts", target.experts},
          {"experts_per_token", target.experts_per_token}};
}

/// Everything that rates are derived from.
Json counts_of(const Counts& counts) {
  return {{"requests", counts.requests},
          {"steps", counts.steps},
          {"drafted", counts.drafted},
          {"accepted", counts.accepted},
          {"rejected", counts.rejected},
          {"unjudged", counts.unjudged},
          {"emitted", counts.emitted},
          {"truncated", counts.truncated},
          {"pass_rows", counts.pass_rows},
          {"drafted_at", counts.drafted_at},
          {"judged_at", counts.judged_at},
          {"accepted_at", counts.accepted_at},
          {"unique_experts", counts.unique_experts},
          {"draft_ns", counts.times.draft_ns},
          {"verify_ns", counts.times.verify_ns},
          {"judge_ns", counts.times.judge_ns},
          {"rest_ns", counts.times.rest_ns},
          {"prefill_ns", counts.prefill_ns}};
}

Json by_prompt(const BenchSummary& summary) {
  const auto list = [&](std::int64_t Counts::* field) {
    Json values = Json::array();
    for (const Counts& counts : summary.by_prompt) values.push_back(counts.*field);
    return values;
  };
  Json ids = Json::array();
  for (const std::string& id : summary.prompt_ids) ids.push_back(id_of(id));
  return {{"question_id", std::move(ids)},       {"emitted", list(&Counts::emitted)},
          {"steps", list(&Counts::steps)},       {"drafted", list(&Counts::drafted)},
          {"accepted", list(&Counts::accepted)}, {"rejected", list(&Counts::rejected)}};
}

Json shares(const Metrics& metrics) {
  return {{"draft", metrics.draft_share},
          {"verify", metrics.verify_share},
          {"judge", metrics.judge_share},
          {"rest", metrics.rest_share}};
}

}  // namespace

double verify_cost_ratio(const Counts& speculative, const Counts& plain) {
  if (speculative.steps == 0 || plain.times.verify_ns == 0) return std::numeric_limits<double>::quiet_NaN();
  const double pass = static_cast<double>(speculative.times.verify_ns) / static_cast<double>(speculative.steps);
  const double plain_pass = static_cast<double>(plain.times.verify_ns) / static_cast<double>(plain.steps);
  return pass / plain_pass;
}

std::string answer_json(const RequestRecord& record, const AnswerContext& context) {
  Counts counts;
  counts.add(record);
  counts.check_identities();
  const Metrics metrics = derive(counts, context.experts_per_token);
  Json line = {{"kind", "answer"},
               {"schema", kResultSchema},
               {"question_id", id_of(record.id)},
               {"category", context.category},
               {"model_id", context.model_id},
               {"choices", Json::array({choice(record, context.text, counts)})}};
  if (context.turn > 1) line["turn"] = context.turn;
  line.update(method_of(context.spec));
  line["run"] = context.run;
  line["finish_reason"] = finish_reason_name(record.finish);
  line.update(sampling_of(context.sampling));
  if (context.logits_processor) line["logits_processor"] = true;
  line.update(totals(counts, metrics));
  line.update(positions(counts, metrics));
  line["unique_experts_per_layer"] = metrics.unique_experts_per_layer;
  line["union_ratio"] = metrics.union_ratio;
  line["stage_ms"] = stage_times(counts);
  line["prompt_ids"] = record.prompt;
  line["token_ids"] = record.tokens;
  line["from_draft"] = record.from_draft;
  line.update(steps_of(record));
  return line_of(line);
}

std::string summary_json(const BenchSummary& summary, const ModelInfo& target, int threads,
                         const Provenance& provenance, const std::string& config_json) {
  const Metrics plain = derive(summary.plain, target.experts_per_token);
  const Metrics speculative = derive(summary.speculative, target.experts_per_token);
  Json line = {{"kind", "summary"}, {"schema", kResultSchema}, {"model_id", target.name}};
  line.update(cell_of(summary));
  line["lossless"] = summary.lossless;
  line["prompts"] = summary.prompts;
  line["runs"] = summary.runs;
  line["plain_tokens_per_s"] = plain.tokens_per_s;
  line["speculative_tokens_per_s"] = speculative.tokens_per_s;
  line["speedup"] = {{"median", summary.speedup.median}, {"low", summary.speedup.low}, {"high", summary.speedup.high}};
  line["speedup_per_group"] = summary.speedups;
  line["tau"] = speculative.tau;
  line["acceptance_rate"] = speculative.acceptance_rate;
  line["draft_efficiency"] = speculative.draft_efficiency;
  line.update(positions(summary.speculative, speculative));
  line["unique_experts"] = speculative.unique_experts;
  line["unique_experts_per_layer"] = speculative.unique_experts_per_layer;
  line["union_ratio"] = speculative.union_ratio;
  line["rows_per_step"] = speculative.rows_per_step;
  line["verify_cost_ratio"] = verify_cost_ratio(summary.speculative, summary.plain);
  line["identical"] = summary.identical ? Json(*summary.identical) : Json(nullptr);
  line["difference"] = summary.difference;
  line["time_share"] = shares(speculative);
  line["plain_time_share"] = shares(plain);
  line["counts"] = counts_of(summary.speculative);
  line["plain_counts"] = counts_of(summary.plain);
  line["per_prompt"] = by_prompt(summary);
  line["target"] = target_of(target);
  line["provenance"] = provenance_of(provenance, target, threads, summary.sampling, config_json);
  return line_of(line);
}

std::string provenance_json(const Provenance& provenance) { return line_of(provenance_of(provenance)); }

std::string failure_json(const BenchSummary& cell, const std::string& error) {
  Json line = {{"kind", "failed"}, {"schema", kResultSchema}};
  line.update(cell_of(cell));
  line["error"] = error;
  return line_of(line);
}

}  // namespace specmoe
