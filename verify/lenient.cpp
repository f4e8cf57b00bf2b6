#include "core/acceptance.h"
#include "verify/chain_walk.h"

namespace specmoe {
namespace {

/// Token-level rejection sampling with the draft's probabilities scaled down, so that more is accepted.
///
/// draft    a chain of any law
/// scores   target_probs of the nodes on the accepted path
/// lossy    emits no token more often than p / lenience; lenience = 1 is `token`, bit for bit
/// throws   Error when the tree branches
/// source   Leviathan et al. 2023, appendix, arXiv:2211.17192
class Lenient : public PolicyOf<Lenient> {
 public:
  explicit Lenient(Params& params)
      : lenience_(params.real("lenience", 0.8, "factor on the draft's probabilities, 1 accepts no more than `token`")) {
    SPECMOE_CHECK(lenience_ > 0.0 && lenience_ <= 1.0, "lenient: lenience must be above 0 and at most 1, got ",
                  lenience_);
  }
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "lenient");
    ratio_walk(draft, target, uniforms, verdict, Wide<Real>(lenience_));
  }

 private:
  double lenience_;
};

SPECMOE_REGISTER(acceptance_policies(), "lenient", Lenient, "lossy: min(1, p / (l q)) with l below 1 (Leviathan)");

}  // namespace
}  // namespace specmoe
