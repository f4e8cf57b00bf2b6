#include "core/acceptance.h"
#include "verify/chain_walk.h"

namespace specmoe {
namespace {

/// Accepts each drafted token with probability min(1, p/q), in order; the first failure is replaced by a draw from the
/// residual norm((p - q)+).
///
/// draft    a chain of any law; a token chosen without a row counts as drawn from a point mass
/// scores   target_probs of the nodes on the accepted path
/// returns  accepted path and the recovered or bonus token; O(gamma * V) time
/// throws   Error when the tree branches
/// source   Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318
class Token : public PolicyOf<Token> {
 public:
  explicit Token(Params&) {}
  LawSet lossless_laws() const override { return LawSet::all(); }
  std::optional<DeviceJudge> on_device(DraftLaw) const override { return DeviceJudge{DeviceRule::kToken}; }
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "token");
    ratio_walk(draft, target, uniforms, verdict, Wide<Real>(1));
  }
};

SPECMOE_REGISTER(acceptance_policies(), "token", Token, "accepts each token with probability min(1, p/q) (Leviathan)");

}  // namespace
}  // namespace specmoe
