#include "core/metrics.h"

#include <algorithm>
#include <limits>

#include "core/uniforms.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

double ratio(double numerator, double denominator) {
  return denominator != 0.0 ? numerator / denominator : std::numeric_limits<double>::quiet_NaN();
}

std::int64_t sum(const std::vector<std::int64_t>& values) {
  std::int64_t total = 0;
  for (std::int64_t value : values) total += value;
  return total;
}

void add_up_to(std::vector<std::int64_t>& counts, int depth) {
  if (static_cast<int>(counts.size()) < depth) counts.resize(depth, 0);
  for (int i = 0; i < depth; ++i) ++counts[i];
}

void add_elements(std::vector<std::int64_t>& into, const std::vector<std::int64_t>& from) {
  if (into.size() < from.size()) into.resize(from.size(), 0);
  for (std::size_t i = 0; i < from.size(); ++i) into[i] += from[i];
}

double median_of(std::vector<double>& values) {
  const std::size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + middle, values.end());
  if (values.size() % 2 == 1) return values[middle];
  return 0.5 * (values[middle] + *std::max_element(values.begin(), values.begin() + middle));
}

}  // namespace

void Counts::add(const RequestRecord& request) {
  ++requests;
  prefill_ns += request.prefill_ns;
  if (static_cast<int>(unique_experts.size()) < request.moe_layers) unique_experts.resize(request.moe_layers, 0);
  for (std::size_t s = 0; s < request.steps.size(); ++s) {
    const StepRecord& step = request.steps[s];
    ++steps;
    drafted += step.drafted;
    accepted += step.accepted;
    rejected += step.rejected;
    unjudged += step.unjudged;
    emitted += step.emitted;
    truncated += step.truncated;
    pass_rows += step.pass_rows;
    times += step.times;
    add_up_to(drafted_at, step.drafted_depth);
    add_up_to(judged_at, step.judged_depth);
    add_up_to(accepted_at, step.accepted);
    for (int layer = 0; layer < request.moe_layers; ++layer) {
      unique_experts[layer] += request.unique_experts[s * request.moe_layers + layer];
    }
  }
}

void Counts::add(const Counts& other) {
  requests += other.requests;
  steps += other.steps;
  drafted += other.drafted;
  accepted += other.accepted;
  rejected += other.rejected;
  unjudged += other.unjudged;
  emitted += other.emitted;
  truncated += other.truncated;
  pass_rows += other.pass_rows;
  prefill_ns += other.prefill_ns;
  times += other.times;
  add_elements(drafted_at, other.drafted_at);
  add_elements(judged_at, other.judged_at);
  add_elements(accepted_at, other.accepted_at);
  add_elements(unique_experts, other.unique_experts);
}

void Counts::check_identities() const {
  SPECMOE_CHECK(drafted == accepted + rejected + unjudged, "accounting: drafted ", drafted, " is not accepted ",
                accepted, " + rejected ", rejected, " + unjudged ", unjudged);
  SPECMOE_CHECK(emitted == accepted + steps - truncated, "accounting: emitted ", emitted, " is not accepted ", accepted,
                " + steps ", steps, " - truncated ", truncated);
  SPECMOE_CHECK(sum(accepted_at) == accepted, "accounting: accepted by position sums to ", sum(accepted_at),
                ", accepted is ", accepted);
  SPECMOE_CHECK(accepted_at.size() <= judged_at.size() && judged_at.size() <= drafted_at.size(),
                "accounting: positions accepted ", accepted_at.size(), ", judged ", judged_at.size(), ", drafted ",
                drafted_at.size(), " must not fall in this order");
  for (std::size_t i = 0; i < judged_at.size(); ++i) {
    SPECMOE_CHECK(judged_at[i] <= drafted_at[i], "accounting: position ", i, " judged ", judged_at[i],
                  " times, drafted ", drafted_at[i]);
  }
}

Metrics derive(const Counts& counts, int experts_per_token) {
  Metrics metrics;
  const double decode_ns = static_cast<double>(counts.times.total_ns());
  const double steps = static_cast<double>(counts.steps);
  metrics.tokens_per_s = ratio(counts.emitted * 1e9, decode_ns);
  metrics.tau = ratio(counts.emitted, steps);
  metrics.acceptance_rate = ratio(sum(counts.accepted_at), sum(counts.judged_at));
  metrics.draft_efficiency = ratio(counts.accepted, counts.drafted);
  metrics.rows_per_step = ratio(counts.pass_rows, steps);
  for (std::size_t i = 0; i < counts.judged_at.size(); ++i) {
    const double accepted = i < counts.accepted_at.size() ? static_cast<double>(counts.accepted_at[i]) : 0.0;
    metrics.acceptance_per_position.push_back(ratio(accepted, counts.judged_at[i]));
    metrics.reached_per_position.push_back(ratio(accepted, steps));
  }
  for (std::int64_t total : counts.unique_experts) metrics.unique_experts_per_layer.push_back(ratio(total, steps));
  metrics.unique_experts = ratio(sum(counts.unique_experts), steps * counts.unique_experts.size());
  metrics.union_ratio = ratio(metrics.unique_experts, experts_per_token);
  metrics.draft_share = ratio(counts.times.draft_ns, decode_ns);
  metrics.verify_share = ratio(counts.times.verify_ns, decode_ns);
  metrics.judge_share = ratio(counts.times.judge_ns, decode_ns);
  metrics.rest_share = ratio(counts.times.rest_ns, decode_ns);
  return metrics;
}

std::vector<std::pair<std::string, std::string>> metric_definitions() {
  return {
      {"tokens/s", "emitted tokens / decode time; prefill, tokenising and loading excluded"},
      {"speed-up", "plain decode time / speculative decode time: same prompts, same tokens, same process"},
      {"tau", "mean acceptance length: emitted tokens / steps, the extra token of each step included"},
      {"acceptance at position i", "steps that accepted depth i / steps that judged a node at depth i"},
      {"acceptance rate (alpha)",
       "the same over all positions: accepted / judged; judging stops at the first rejection"},
      {"draft efficiency", "accepted / drafted nodes"},
      {"unique experts", "distinct experts over the rows of one target pass, mean over MoE layers and steps"},
      {"union ratio", "unique experts / experts per token"},
      {"verify cost ratio r(T)", "mean time of a speculative target pass / mean time of a plain one"},
  };
}

Interval bootstrap_median(std::span<const double> values) {
  Interval interval;
  if (values.empty()) {
    interval.median = interval.low = interval.high = std::numeric_limits<double>::quiet_NaN();
    return interval;
  }
  constexpr int kResamples = 2000;
  std::vector<double> sample(values.begin(), values.end());
  interval.median = median_of(sample);
  std::vector<double> medians(kResamples);
  for (int r = 0; r < kResamples; ++r) {
    PhiloxUniforms uniforms(0, 0, static_cast<std::uint64_t>(r));
    for (std::size_t i = 0; i < sample.size(); ++i) {
      const double u = uniforms.value({static_cast<std::int32_t>(i), Purpose::kPlugin, 0});
      sample[i] = values[static_cast<std::size_t>(u * static_cast<double>(values.size()))];
    }
    medians[r] = median_of(sample);
  }
  std::sort(medians.begin(), medians.end());
  interval.low = medians[static_cast<std::size_t>(0.025 * kResamples)];
  interval.high = medians[static_cast<std::size_t>(0.975 * kResamples)];
  return interval;
}

}  // namespace specmoe
