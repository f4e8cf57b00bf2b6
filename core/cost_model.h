#pragma once

#include <span>

#include "core/language_model.h"

namespace specmoe {

/// Distinct experts of a layer that `rows` tokens wake, `chosen` each out of `experts`: E (1 - (1 - K/E)^t), where the
/// rows count as t = 1 + (1 - correlation) (rows - 1) independent ones. Correlation 0: each row chooses by itself; 1:
/// all rows choose alike.
///
/// source  for independent rows Huang et al. 2025 (MoESD), arXiv:2505.19645
double expected_experts(int experts, int chosen, double rows, double correlation);
/// The same for a model's mixture layers: 0 where it has none. NaN, a correlation that could not be fitted: 0.
double expected_experts(const ModelInfo& info, double rows, double correlation);

/// What was counted: `distinct` experts per layer, in the mean, in passes of `rows` rows.
struct CountedExperts {
  double rows = 1;
  double distinct = 0;
};

/// The correlation, -1 to 1, with which expected_experts() comes nearest to the counts (least squares; below 0 where
/// rows avoid each other's experts). NaN when no count is of more than one row, or none could tell.
double fit_routing_correlation(int experts, int chosen, std::span<const CountedExperts> counted);

/// What a target pass reads, weights, keys and values, and the arithmetic of its products; attention's own is left out.
struct PassWork {
  double bytes = 0;
  double operations = 0;  // a multiply-add is two
};

/// rows     tokens of the pass, `context` of them before it in the cache
/// experts  distinct ones it wakes in each mixture layer
PassWork pass_work(const ModelInfo& info, double rows, double context, double experts);

/// What a machine does in a second.
struct MachineRates {
  double bytes = 0;
  double operations = 0;  // 0: not known, and taken for no limit
};

/// The larger of reading and multiplying: the least time that a pass takes, in seconds.
double pass_seconds(const PassWork& work, const MachineRates& rates);

}  // namespace specmoe
