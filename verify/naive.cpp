#include "core/acceptance.h"
#include "verify/naive_rule.h"

namespace specmoe {
namespace {

/// Samples the target at each node and follows the child that happens to carry the sampled token.
///
/// draft    any tree, any law: the draft's probabilities are not looked at
/// scores   target_probs of the visited nodes
/// returns  accepted path; the last sampled token; O(depth * V) time
/// source   naive sampling of Miao et al. 2024 (SpecInfer), arXiv:2305.09781; the stochastic rule of EAGLE-2 and of
///          SGLang's tree kernel draws the same law
class Naive : public PolicyOf<Naive> {
 public:
  explicit Naive(Params&) {}
  LawSet lossless_laws() const override { return LawSet::all(); }
  std::optional<DeviceJudge> on_device(DraftLaw) const override { return DeviceJudge{DeviceRule::kNaive}; }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    naive_rule(draft, target, uniforms, verdict);
  }
};

SPECMOE_REGISTER(acceptance_policies(), "naive", Naive, "samples the target, keeps what the tree holds (SpecInfer)");

}  // namespace
}  // namespace specmoe
