#pragma once

#include "core/greedy_walk.h"
#include "core/residual.h"

namespace specmoe {

template <class Tree>
SPECMOE_HD NodeId last_child(const Tree& tree, NodeId node) {
  NodeId last = TokenTree::kNone;
  for (NodeId n = tree.first_child(node); n != TokenTree::kNone; n = tree.next_sibling(n)) last = n;
  return last;
}

template <class Tree>
SPECMOE_HD NodeId child_with(const Tree& tree, NodeId node, TokenId token) {
  NodeId child = tree.first_child(node);
  while (child != TokenTree::kNone && tree.token(child) != token) child = tree.next_sibling(child);
  return child;
}

template <class Row, class W, class Uniform>
SPECMOE_HD TokenId draw_sibling(const Row& row, const Taken& others, const W& total, const Uniform& uniform) {
  TokenId pending = -1;
  W below(0);
  bool found = false;
  others.for_each_token([&](TokenId x) {
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

/// One of norm((p - c q)+) with q = 0 on the siblings.
template <class Row, class W, class Uniform>
SPECMOE_HD TokenId draw_rest(const Row& row, const Row& q, const W& c, const Taken& others, const Uniform& uniform) {
  using Team = typename Row::Team;
  const auto excess = [&row, &q, &c](TokenId x) { return positive(W(row[x] - c * q[x])); };
  const auto dense_excess = [p = row.dense().data(), d = q.dense().data(), c](TokenId x) {
    return positive(W(W(p[x]) - c * W(d[x])));
  };
  const auto draw = [&](const auto& term) {
    const W rest = sum_terms<W, Team>(row.vocab(), term, others);
    W on_siblings(0);
    others.for_each_token([&](TokenId x) { on_siblings += row[x]; });
    const W total = rest + on_siblings;
    if (!(total > W(0))) return draw_from_row(row, Taken{}, uniform);
    if (!(rest > W(0)) || uniform.less(on_siblings, total)) return draw_sibling(row, others, total, uniform);
    return draw_token<Team>(row.vocab(), term, total, others, uniform, on_siblings);
  };
  return q.is_point() ? draw(excess) : draw(dense_excess);
}

/// The token after `node`, distributed as `row`: the last child's, or one of norm((p - q')+), q' being the last child's
/// row outside its siblings. A last child that repeats a sibling says nothing: then one of p.
template <class Draft, class Row, class Uniforms>
SPECMOE_HD TokenId emit_at(Draft& draft, NodeId node, NodeId last, const Row& row, Uniforms& uniforms) {
  using W = typename Row::Scalar;
  const Taken others = Taken::children_before(draft, node, last);
  const TokenId x = draft.tree.token(last);
  const auto next = [&] { return uniforms.at({node, Purpose::kNext, 0}); };
  if (others.contains(x)) return draw_from_row(row, Taken{}, next());
  const Row q = draft.row(last);
  check_row(q, "draft row", last);
  if (!(q[x] > W(0))) refuse_token(q, last, x);
  const W left = mass_outside(q, others);
  if (uniforms.at({last, Purpose::kAccept, 0}).less(W(row[x] * left), q[x])) return x;
  if (row.is_point()) return row.point_token();
  return draw_rest(row, q, W(W(1) / left), others, next());
}

/// See greedy_ot.cpp.
template <class Draft, class Rows, class Uniforms, class Verdict>
SPECMOE_HD void greedy_ot_rule(Draft& draft, Rows& target, Uniforms& uniforms, Verdict& verdict) {
  NodeId node = TokenTree::kRoot;
  for (;;) {
    const auto row = target.row(node);
    check_row(row, "target row", node);
    const NodeId last = last_child(draft.tree, node);
    verdict.next = last == TokenTree::kNone ? draw_from_row(row, Taken{}, uniforms.at({node, Purpose::kNext, 0}))
                                            : emit_at(draft, node, last, row, uniforms);
    const NodeId child = child_with(draft.tree, node, verdict.next);
    if (child == TokenTree::kNone) break;
    node = child;
  }
  accept_path(draft.tree, node, verdict);
}

}  // namespace specmoe
