#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "core/residual.h"
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
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    const bool without_replacement = siblings_.without_replacement(draft.law);
    NodeId node = TokenTree::kRoot;
    NodeId accepted = TokenTree::kNone;
    do {
      const ProbRow<Real> row = target.row(node);
      check_row(row, "target row", node);
      check_child_rows(draft, node);
      Residual<Real> residual(draft, node, row, without_replacement);
      accepted = draft.tree.first_child(node);
      for (; accepted != TokenTree::kNone; accepted = draft.tree.next_sibling(accepted)) {
        const auto [p, q] = residual.ratio(accepted);
        if (uniforms.at({accepted, Purpose::kAccept, 0}).less(p, q)) break;
        residual.reject(accepted);
      }
      if (accepted == TokenTree::kNone) {
        verdict.next = residual.draw(uniforms.at({node, Purpose::kNext, 0}));
      } else {
        node = accepted;
      }
    } while (accepted != TokenTree::kNone);
    accept_path(draft.tree, node, verdict);
  }

 private:
  SiblingLaw siblings_;
};

SPECMOE_REGISTER(acceptance_policies(), "multi_step", MultiStep,
                 "tests siblings in turn against the residual (SpecInfer, Sequoia)");

}  // namespace
}  // namespace specmoe
