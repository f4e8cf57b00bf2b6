#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "core/row_stats.h"

namespace specmoe {
namespace {

/// Accepts a token that is among the target's likeliest and not much less likely than the first; otherwise emits the
/// target's argmax.
///
/// draft    any tree, any law; of several acceptable siblings the likeliest is followed
/// scores   target_probs of the nodes on the accepted path
/// lossy    emits the argmax, or a near tie of it that was drafted; with top = 1 the greedy text
/// source   relaxed acceptance of TensorRT-LLM for multi-token prediction (DeepSeek-R1), tech blog 2; differs: applies
///          everywhere, not between thinking tokens alone
class Relaxed : public PolicyOf<Relaxed> {
 public:
  explicit Relaxed(Params& params)
      : top_(params.integer("top", 10, "how many of the target's tokens may pass")),
        delta_(params.real("delta", 0.6, "how far below the likeliest one their probability may lie")) {
    SPECMOE_CHECK(top_ >= 1, "relaxed: top must be at least 1, got ", top_);
    SPECMOE_CHECK(delta_ >= 0.0 && delta_ <= 1.0, "relaxed: delta must lie between 0 and 1, got ", delta_);
  }
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>&, Verdict& verdict) const {
    check_draft(draft, target);
    NodeId node = TokenTree::kRoot;
    for (;;) {
      const ProbRow<Real> row = target.row(node);
      check_row(row, "target row", node);
      const NodeId child = likeliest_acceptable(draft.tree, node, row);
      if (child == TokenTree::kNone) {
        verdict.next = argmax_token(row);
        break;
      }
      node = child;
    }
    accept_path(draft.tree, node, verdict);
  }

 private:
  template <class Real>
  NodeId likeliest_acceptable(const TokenTree& tree, NodeId node, const ProbRow<Real>& row) const {
    if (tree.is_leaf(node)) return TokenTree::kNone;
    const double least = peak(row) - delta_;
    NodeId best = TokenTree::kNone;
    double best_p = 0.0;
    for (NodeId child = tree.first_child(node); child != TokenTree::kNone; child = tree.next_sibling(child)) {
      const auto p = static_cast<double>(row[tree.token(child)]);
      const bool tie = p == best_p && best != TokenTree::kNone && tree.token(child) < tree.token(best);
      if ((p > best_p || tie) && p >= least) {
        best = child;
        best_p = p;
      }
    }
    // The likeliest child has the best rank of all children: if it is not among the top, none is.
    return best != TokenTree::kNone && rank_of(row, tree.token(best)) < top_ ? best : TokenTree::kNone;
  }

  int top_;
  double delta_;
};

SPECMOE_REGISTER(acceptance_policies(), "relaxed", Relaxed, "lossy: among the top n, within delta (TensorRT-LLM)");

}  // namespace
}  // namespace specmoe
