#include "core/speedup_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "kernels/check.h"

namespace specmoe {
namespace {

double per_step(double total, const Counts& counts) { return total / static_cast<double>(counts.steps); }
double rows_of(const Counts& counts) { return per_step(static_cast<double>(counts.pass_rows), counts); }

/// Of each token whether the drafter proposes it after the text so far, as far as the steps of chain(gamma) tell.
std::vector<bool> proposed_tokens(const RequestRecord& text, int gamma) {
  std::vector<bool> proposed;
  for (const StepRecord& step : text.steps) {
    proposed.insert(proposed.end(), static_cast<std::size_t>(step.accepted), true);
    if (step.emitted > step.accepted) proposed.push_back(step.accepted == gamma);
  }
  return proposed;
}

}  // namespace

SpeedupModel::SpeedupModel(const ModelInfo& target, const Counts& plain, std::span<const Counts> probes)
    : target_(target) {
  SPECMOE_CHECK(!probes.empty() && plain.steps > 0, "a speed-up model is fitted to plain steps and to probes");
  std::vector<CountedExperts> counted;
  for (const Counts& probe : probes) {
    SPECMOE_CHECK(probe.steps > 0, "a speed-up model is fitted to probes that have steps");
    counted.push_back({rows_of(probe), derive(probe, target.experts_per_token).unique_experts});
  }
  correlation_ = fit_routing_correlation(target.experts, target.experts_per_token, counted);
  sequences_ = rows_of(plain);
  plain_seconds_ = 1e-9 * static_cast<double>(plain.times.total_ns()) / static_cast<double>(plain.emitted);
  plain_pass_seconds_ = 1e-9 * per_step(plain.times.verify_ns, plain);

  std::vector<ShareSample> passes, drafts;
  double rest = 0;
  for (const Counts& probe : probes) {
    const PassWork work = work_of(rows_of(probe));
    passes.push_back({work.bytes, work.operations, 1e-9 * per_step(probe.times.verify_ns, probe) * sequences_});
    drafts.push_back({drafted_levels(probe), drafted_nodes(probe), 1e-9 * per_step(probe.times.draft_ns, probe)});
    rest += 1e-9 * per_step(probe.times.judge_ns + probe.times.rest_ns, probe);
  }
  std::tie(byte_seconds_, operation_seconds_) = fit_shares(passes);
  std::tie(level_seconds_, node_seconds_) = fit_shares(drafts);
  rest_seconds_ = rest / static_cast<double>(probes.size());
}

/// Keys and values of the text so far are left out: all passes read the same.
PassWork SpeedupModel::work_of(double rows) const {
  return pass_work(target_, rows, 0, expected_experts(target_, rows, correlation_));
}

double SpeedupModel::pass_seconds(double nodes) const {
  if (nodes == 0) return plain_pass_seconds_;
  const PassWork work = work_of(sequences_ * (nodes + 1));
  return (byte_seconds_ * work.bytes + operation_seconds_ * work.operations) / sequences_;
}

double SpeedupModel::draft_seconds(double nodes, double levels) const {
  return level_seconds_ * levels + node_seconds_ * nodes;
}

Prediction SpeedupModel::expect(double tau, double pass_seconds, double draft_seconds) const {
  return {tau, pass_seconds / plain_pass_seconds_,
          tau * plain_seconds_ / (pass_seconds + draft_seconds + rest_seconds_)};
}

Prediction SpeedupModel::predict(double tau, double nodes, double levels) const {
  return expect(tau, pass_seconds(nodes), draft_seconds(nodes, levels));
}

Prediction SpeedupModel::predict(std::span<const RequestRecord> texts, double draft_seconds) const {
  double steps = 0, emitted = 0, passes = 0;
  for (const RequestRecord& text : texts) {
    for (const StepRecord& step : text.steps) {
      ++steps;
      emitted += step.emitted;
      passes += pass_seconds(step.drafted);
    }
  }
  SPECMOE_CHECK(steps > 0, "a speed-up is predicted of steps, and these texts have none");
  return expect(emitted / steps, passes / steps, draft_seconds);
}

double drafted_nodes(const Counts& counts) { return per_step(static_cast<double>(counts.drafted), counts); }

double drafted_levels(const Counts& counts) {
  const auto reached = std::accumulate(counts.drafted_at.begin(), counts.drafted_at.end(), std::int64_t{0});
  return per_step(static_cast<double>(reached), counts);
}

double chain_tokens(std::span<const RequestRecord> texts, int written_by, int gamma) {
  double tokens = 0, steps = 0;
  for (const RequestRecord& text : texts) {
    const std::vector<bool> proposed = proposed_tokens(text, written_by);
    for (std::size_t at = 0; at < proposed.size(); ++steps) {
      const std::size_t end = std::min(proposed.size(), at + static_cast<std::size_t>(gamma));
      while (at < end && proposed[at]) ++at;
      ++at;  // the extra token
    }
    tokens += static_cast<double>(proposed.size());
  }
  return tokens / steps;
}

std::pair<double, double> fit_shares(std::span<const ShareSample> samples) {
  double xx = 0, xy = 0, yy = 0, x = 0, y = 0;  // of samples divided by their z
  for (const ShareSample& sample : samples) {
    const double u = sample.x / sample.z, v = sample.y / sample.z;
    xx += u * u;
    xy += u * v;
    yy += v * v;
    x += u;
    y += v;
  }
  const double determinant = xx * yy - xy * xy;
  const bool independent = determinant > 1e-9 * xx * yy;
  const double a = independent ? (x * yy - y * xy) / determinant : 0;
  const double b = independent ? (y * xx - x * xy) / determinant : -1;
  if (a >= 0 && b >= 0) return {a, b};
  // One of them alone: the better one.
  const double only_a = xx > 0 ? x / xx : 0, only_b = yy > 0 ? y / yy : 0;
  const auto error = [&](double p, double q) { return p * p * xx + 2 * p * q * xy + q * q * yy - 2 * (p * x + q * y); };
  return error(only_a, 0) <= error(0, only_b) ? std::pair(only_a, 0.0) : std::pair(0.0, only_b);
}

}  // namespace specmoe
