#include "core/acceptance.h"
#include "verify/greedy_ot_rule.h"

namespace specmoe {
namespace {

/// Tests the last child against the law it was drawn by, given its siblings; where that fails, a draw from the residual
/// may still fall on any sibling.
///
/// draft    any tree; optimal when the earlier siblings are the likeliest tokens (top_plus_sampled)
/// scores   target_probs of the nodes on the accepted path
/// returns  accepted path and the recovered or bonus token; O(depth * V) time
/// source   the draft of Hu et al. 2025, arXiv:2502.18779; differs: the order of verification and its extension to any
///          law with a known last draw are our own, proved by enumeration
class GreedyOt : public PolicyOf<GreedyOt> {
 public:
  explicit GreedyOt(Params&) {}
  LawSet lossless_laws() const override { return LawSet::all(); }
  std::optional<DeviceJudge> on_device(DraftLaw) const override { return DeviceJudge{DeviceRule::kGreedyOt}; }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    greedy_ot_rule(draft, target, uniforms, verdict);
  }
};

SPECMOE_REGISTER(acceptance_policies(), "greedy_ot", GreedyOt,
                 "tests the last sibling, covers with the others (Hu et al.)");

}  // namespace
}  // namespace specmoe
