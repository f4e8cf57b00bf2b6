#include "verify/verify_tree.h"

#include <array>

#include "kernels/check.h"

namespace specmoe::cuda {

std::optional<DeviceRule> device_rule(std::string_view policy) {
  constexpr std::array<std::string_view, 6> kNames = {"greedy", "naive", "token", "block", "multi_step", "greedy_ot"};
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == policy) return static_cast<DeviceRule>(i);
  }
  return std::nullopt;
}

void check_verdict(const DeviceVerdict& verdict) {
  switch (verdict.problem) {
    case VerifyProblem::kNone:
      return;
    case VerifyProblem::kTargetRow:
      fail("target row of node ", verdict.node, ": expected probabilities of 0 or more that sum to 1 within 1e-4");
    case VerifyProblem::kDraftRow:
      fail("draft row of node ", verdict.node, ": expected probabilities of 0 or more that sum to 1 within 1e-4");
    case VerifyProblem::kDraftToken:
      fail("draft row of node ", verdict.node, ": gives its own token probability 0");
    case VerifyProblem::kTooManyRows:
      fail("children of one node come from too many rows; order them by row");
    case VerifyProblem::kLogits:
      fail("logits of node ", verdict.node, " are NaN; check the checkpoint's weights");
  }
}

}  // namespace specmoe::cuda
