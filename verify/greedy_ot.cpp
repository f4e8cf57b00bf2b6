#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "verify/siblings.h"

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
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    NodeId node = TokenTree::kRoot;
    for (;;) {
      const ProbRow<Real> row = target.row(node);
      check_row(row, "target row", node);
      const NodeId last = last_child(draft.tree, node);
      verdict.next = last == TokenTree::kNone ? draw_from_row(row, Taken{}, uniforms.at({node, Purpose::kNext, 0}))
                                              : emit_at(draft, node, last, row, uniforms);
      const NodeId child = follow_child(draft.tree, node, verdict.next);
      if (child == TokenTree::kNone) break;
      node = child;
    }
    accept_path(draft.tree, node, verdict);
  }

 private:
  static NodeId last_child(const TokenTree& tree, NodeId node) {
    NodeId last = TokenTree::kNone;
    for (NodeId n = tree.first_child(node); n != TokenTree::kNone; n = tree.next_sibling(n)) last = n;
    return last;
  }
  static NodeId follow_child(const TokenTree& tree, NodeId node, TokenId token) {
    NodeId child = tree.first_child(node);
    while (child != TokenTree::kNone && tree.token(child) != token) child = tree.next_sibling(child);
    return child;
  }

  /// The token after `node`, distributed as `row`: the last child's, or one of norm((p - q')+), q' being the last
  /// child's row outside its siblings. A last child that repeats a sibling says nothing: then one of p.
  template <class Real>
  static TokenId emit_at(Draft<Real>& draft, NodeId node, NodeId last, const ProbRow<Real>& row,
                         UniformSource<Wide<Real>>& uniforms) {
    using W = Wide<Real>;
    const Taken others = Taken::children_before(draft, node, last);
    const TokenId x = draft.tree.token(last);
    const auto next = [&] { return uniforms.at({node, Purpose::kNext, 0}); };
    if (others.contains(x)) return draw_from_row(row, Taken{}, next());
    const ProbRow<Real> q = draft.row(last);
    check_row(q, "draft row", last);
    SPECMOE_CHECK(q[x] > W(0), "draft row of node ", last, ": gives its own token ", x, " probability 0");
    const W left = mass_outside(q, others);
    if (uniforms.at({last, Purpose::kAccept, 0}).less(row[x] * left, q[x])) return x;
    if (row.is_point()) return row.point_token();
    return draw_rest(draft.tree, row, q, W(1) / left, others, next());
  }

  /// One of norm((p - c q)+) with q = 0 on the siblings.
  template <class Real>
  static TokenId draw_rest(const TokenTree& tree, const ProbRow<Real>& row, const ProbRow<Real>& q, const Wide<Real>& c,
                           const Taken& others, const Uniform<Wide<Real>>& uniform) {
    using W = Wide<Real>;
    const auto excess = [&row, &q, &c](TokenId x) { return std::max(W(row[x] - c * q[x]), W(0)); };
    const auto dense_excess = [p = row.dense().data(), d = q.dense().data(), c](TokenId x) {
      return std::max(W(W(p[x]) - c * W(d[x])), W(0));
    };
    const auto draw = [&](const auto& term) {
      const W rest = sum_terms<W>(row.vocab(), term, others);
      W on_siblings(0);
      for_each_token(tree, others, [&](TokenId x) { on_siblings += row[x]; });
      const W total = rest + on_siblings;
      if (!(total > W(0))) return draw_from_row(row, Taken{}, uniform);
      if (!(rest > W(0)) || uniform.less(on_siblings, total)) return draw_sibling(tree, row, others, total, uniform);
      return draw_token(row.vocab(), term, total, others, uniform, on_siblings);
    };
    return q.is_point() ? draw(excess) : draw(dense_excess);
  }

  template <class Real>
  static TokenId draw_sibling(const TokenTree& tree, const ProbRow<Real>& row, const Taken& others,
                              const Wide<Real>& total, const Uniform<Wide<Real>>& uniform) {
    using W = Wide<Real>;
    TokenId pending = -1;
    W below(0);
    bool found = false;
    for_each_token(tree, others, [&](TokenId x) {
      if (found || !(row[x] > W(0))) return;
      if (pending >= 0 && uniform.less(below, total)) {
        found = true;
        return;
      }
      below += row[x];
      pending = x;
    });
    return pending;
  }

  /// Calls see(token) for each distinct token of the siblings.
  template <class See>
  static void for_each_token(const TokenTree& tree, const Taken& siblings, const See& see) {
    Taken before = siblings;
    for (NodeId n = siblings.first; n != siblings.end; n = tree.next_sibling(n)) {
      before.end = n;
      if (!before.contains(tree.token(n))) see(tree.token(n));
    }
  }
};

SPECMOE_REGISTER(acceptance_policies(), "greedy_ot", GreedyOt,
                 "tests the last sibling, covers with the others (Hu et al.)");

}  // namespace
}  // namespace specmoe
