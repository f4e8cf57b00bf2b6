#include "core/acceptance.h"
#include "verify/block_rule.h"

namespace specmoe {
namespace {

/// Block verification: accept the longest prefix whose joint ratio passes, not token by token.
///
/// draft    a chain of any law; a token chosen without a row counts as drawn from a point mass
/// scores   target_probs of every node that can still be accepted
/// returns  accepted path and the recovered or bonus token; O(gamma * V) time
/// throws   Error when the tree branches
/// source   Sun et al. 2024, arXiv:2403.10444; differs: positions are tested from the last one down, so that the first
///          success is the longest accepted prefix
class Block : public PolicyOf<Block> {
 public:
  explicit Block(Params&) {}
  LawSet lossless_laws() const override { return LawSet::all(); }
  std::optional<DeviceJudge> on_device(DraftLaw) const override { return DeviceJudge{DeviceRule::kBlock}; }
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "block");
    block_rule(draft, target, uniforms, verdict);
  }
};

SPECMOE_REGISTER(acceptance_policies(), "block", Block, "accepts the longest prefix by its joint ratio (Sun)");

}  // namespace
}  // namespace specmoe
