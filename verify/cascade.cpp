#include "core/acceptance.h"
#include "core/row_stats.h"
#include "verify/chain_walk.h"

namespace specmoe {
namespace {

/// Rejection sampling against a mixed law: the draft's own where it is confident enough, the target's elsewhere.
///
/// draft    a chain of any law; a token chosen without a row is always judged by the target
/// scores   target_probs of the nodes on the accepted path
/// lossy    exact for the mixed law: it defers to p where max q < max p - alpha TV(p, q), and is q otherwise; the extra
///          token after the whole chain comes from p
/// throws   Error when the tree branches
/// source   speculative cascades, Narasimhan et al. 2024, arXiv:2405.19261 (rule OPT)
class Cascade : public PolicyOf<Cascade> {
 public:
  explicit Cascade(Params& params)
      : alpha_(params.real("alpha", 0.5, "how much deferring costs: the larger, the more is kept of the draft")) {}
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "cascade");
    const auto accept = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
      if (!defers(draft, child, row)) return true;
      const auto [p, q] = Residual(draft, node, row, false).ratio(child);
      return uniforms.at({child, Purpose::kAccept, 0}).less(p, q);
    };
    const auto emit = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
      Residual residual(draft, node, row, false);
      if (child != TokenTree::kNone) residual.reject(child);
      return residual.draw(uniforms.at({node, Purpose::kNext, 0}));
    };
    walk_chain(draft, target, verdict, accept, emit);
  }

 private:
  template <class Real>
  bool defers(Draft<Real>& draft, NodeId child, const ProbRow<Real>& row) const {
    if (draft.row_of[child] < 0) return true;
    const ProbRow<Real> q = draft.row(child);
    const double gap = peak(row) - peak(q);
    // TV lies in 0..1, so that the gap alone often decides.
    if (alpha_ >= 0.0 && (gap <= 0.0 || gap > alpha_)) return gap > 0.0;
    return alpha_ * total_variation(row, q) < gap;
  }

  double alpha_;
};

SPECMOE_REGISTER(acceptance_policies(), "cascade", Cascade, "lossy: the draft's law where it is confident (cascades)");

}  // namespace
}  // namespace specmoe
