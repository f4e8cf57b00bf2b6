#include "core/acceptance.h"
#include "core/decide.h"

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
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms,
              Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "token");
    verdict.accepted.clear();
    for (NodeId node = TokenTree::kRoot;;) {
      const ProbRow<Real> row = target.row(node);
      check_row(row, "target row", node);
      Residual<Real> residual(draft, node, row, false);
      const NodeId child = draft.tree.first_child(node);
      if (child != TokenTree::kNone) {
        check_row(draft.row(child), "draft row", child);
        const auto [p, q] = residual.ratio(child);
        if (uniforms.at({child, Purpose::kAccept, 0}).less(p, q)) {
          verdict.accepted.push_back(child);
          node = child;
          continue;
        }
        residual.reject(child);
      }
      verdict.next = residual.draw(uniforms.at({node, Purpose::kNext, 0}));
      return;
    }
  }
};

SPECMOE_REGISTER(acceptance_policies(), "token", Token, "accepts each token with probability min(1, p/q) (Leviathan)");

}  // namespace
}  // namespace specmoe
