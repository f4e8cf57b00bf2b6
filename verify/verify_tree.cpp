#include "verify/verify_tree.h"

#include "kernels/check.h"

namespace specmoe::cuda {

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
