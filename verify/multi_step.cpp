#include "core/acceptance.h"
#include "verify/multi_step_rule.h"
#include "verify/siblings.h"

namespace specmoe {
namespace {

/// Tests the children of a node one after another against what the earlier rejections left of the target's row.
///
/// draft    any tree; duplicates among siblings are each tested, since the second test also changes the residual
/// scores   target_probs of the nodes on the accepted path
/// returns  accepted path and the recovered or bonus token; O(depth * children * V) time, no vocabulary row of scratch
/// source   multi-step speculative sampling, Miao et al. 2024 (SpecInfer), arXiv:2305.09781; without replacement:
///          Chen et al. 2024 (Sequoia), arXiv:2402.12374, and Jeon et al. 2024 (RSD), arXiv:2402.14160; differs:
///          children are tried in the order drawn, not at random, and tokens that were chosen without a row count as
///          drawn from a point mass (SpecInfer uses the drafter's softmax there, which is biased)
class MultiStep : public PolicyOf<MultiStep> {
 public:
  explicit MultiStep(Params& params) : siblings_(params) {}
  LawSet lossless_laws() const override { return siblings_.laws(); }
  std::optional<DeviceJudge> on_device(DraftLaw law) const override {
    return DeviceJudge{DeviceRule::kMultiStep, siblings_.without_replacement(law)};
  }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    multi_step_rule(draft, target, uniforms, verdict, siblings_.without_replacement(draft.law));
  }

 private:
  SiblingLaw siblings_;
};

SPECMOE_REGISTER(acceptance_policies(), "multi_step", MultiStep,
                 "tests siblings in turn against the residual (SpecInfer, Sequoia)");

}  // namespace
}  // namespace specmoe
