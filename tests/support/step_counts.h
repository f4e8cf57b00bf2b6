#pragma once

#include <array>
#include <vector>

#include "core/trace.h"

namespace specmoe::test {

/// All that a step counts, for comparison: times and experts are left out.
inline std::vector<std::array<std::int32_t, 9>> step_counts(const RequestRecord& record) {
  std::vector<std::array<std::int32_t, 9>> counts;
  for (const StepRecord& step : record.steps) {
    counts.push_back({step.drafted, step.accepted, step.rejected, step.unjudged, step.emitted, step.truncated,
                      step.drafted_depth, step.judged_depth, step.pass_rows});
  }
  return counts;
}

}  // namespace specmoe::test
