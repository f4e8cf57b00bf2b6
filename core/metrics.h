#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/trace.h"

namespace specmoe {

/// Sums over steps, of one request or of many. Integers only.
struct Counts {
  std::int64_t requests = 0;
  std::int64_t steps = 0;
  std::int64_t drafted = 0;
  std::int64_t accepted = 0;
  std::int64_t rejected = 0;
  std::int64_t unjudged = 0;
  std::int64_t emitted = 0;
  std::int64_t truncated = 0;
  std::int64_t pass_rows = 0;
  /// [i] steps whose draft reached depth i + 1 / that judged a node there / that accepted one.
  std::vector<std::int64_t> drafted_at, judged_at, accepted_at;
  /// [MoE layers] distinct experts, summed over steps.
  std::vector<std::int64_t> unique_experts;
  StageTimes times;
  std::int64_t prefill_ns = 0;

  void add(const RequestRecord& request);
  void add(const Counts& other);

  /// Throws Error naming the identity that does not hold: drafted = accepted + rejected + unjudged,
  /// emitted = accepted + steps - truncated, judged_at[0] <= drafted_at[0], accepted = sum of accepted_at.
  void check_identities() const;
};

/// Every rate the project reports, each with its denominator. NaN where the denominator is 0.
struct Metrics {
  double tokens_per_s = 0;                       // emitted / decode time (prefill excluded)
  double tau = 0;                                // mean acceptance length: emitted / steps, the extra token included
  double acceptance_rate = 0;                    // accepted / judged nodes on a chain: sum accepted_at / sum judged_at
  double draft_efficiency = 0;                   // accepted / drafted
  double rows_per_step = 0;                      // pass rows / steps
  std::vector<double> acceptance_per_position;   // accepted_at[i] / judged_at[i]: given that position i was judged
  std::vector<double> reached_per_position;      // accepted_at[i] / steps: unconditional
  std::vector<double> unique_experts_per_layer;  // per step
  double unique_experts = 0;                     // per step, mean over MoE layers
  double union_ratio = 0;                        // unique experts / experts per token
  double draft_share = 0, verify_share = 0, judge_share = 0, rest_share = 0;  // of the decode time
};

Metrics derive(const Counts& counts, int experts_per_token);

/// One definition per line, for the foot of every table.
std::vector<std::pair<std::string, std::string>> metric_definitions();

/// Median and percentile-bootstrap interval of the median (level 0.95, 2000 resamples, fixed seed).
struct Interval {
  double median = 0, low = 0, high = 0;
};
Interval bootstrap_median(std::span<const double> values);

}  // namespace specmoe
