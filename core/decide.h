#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "core/draft.h"
#include "core/float_block.h"
#include "core/prob_rows.h"
#include "core/uniforms.h"
#include "kernels/check.h"

namespace specmoe {

/// Tokens taken out of a row: those of the siblings from `first` up to, not including, `end`. With `points_only`, of
/// those siblings alone that were chosen without a row.
struct Taken {
  const TokenTree* tree = nullptr;
  std::span<const std::int32_t> row_of;
  NodeId first = TokenTree::kNone;
  NodeId end = TokenTree::kNone;
  bool points_only = false;

  template <class Real>
  static Taken children_before(const Draft<Real>& draft, NodeId parent, NodeId end, bool points_only = false) {
    return {&draft.tree, draft.row_of, draft.tree.first_child(parent), end, points_only};
  }
  bool empty() const { return first == end; }
  bool contains(TokenId x) const {
    return any([x](TokenId token) { return token == x; });
  }
  /// Whether a token in [lo, hi) is taken.
  bool touches(TokenId lo, TokenId hi) const {
    return any([lo, hi](TokenId token) { return lo <= token && token < hi; });
  }
  template <class Condition>
  bool any(Condition condition) const {
    for (NodeId n = first; n != end; n = tree->next_sibling(n)) {
      if (points_only && row_of[n] >= 0) continue;
      if (condition(tree->token(n))) return true;
    }
    return false;
  }
};

/// Tokens per block. Sums run block by block in eight lanes, one order whatever the caller, and a draw finds its block
/// before its token.
inline constexpr int kDecideBlock = 256;

/// Sum of term(x) over x in [lo, hi) that are not taken.
template <class W, class Term>
W block_sum(int lo, int hi, const Term& term, const Taken& taken) {
  constexpr int kLanes = 8;
  W lanes[kLanes] = {W(0), W(0), W(0), W(0), W(0), W(0), W(0), W(0)};
  int x = lo;
  if (taken.empty() || !taken.touches(lo, hi)) {
    for (; x + kLanes <= hi; x += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(x + lane);
    }
    for (; x < hi; ++x) lanes[0] += term(x);
  } else {
    for (; x < hi; ++x) {
      if (!taken.contains(x)) lanes[0] += term(x);
    }
  }
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <class W, class Term>
W sum_terms(int vocab, const Term& term, const Taken& taken = {}) {
  W total(0);
  for (int lo = 0; lo < vocab; lo += kDecideBlock) {
    total += block_sum<W>(lo, std::min(lo + kDecideBlock, vocab), term, taken);
  }
  return total;
}

/// The token of [lo, hi) where the running sum, `below` before lo, passes u * total. The last positive one is not asked
/// about: it takes what rounding leaves. -1 when nothing is positive.
template <class W, class Term>
TokenId draw_in_block(int lo, int hi, const Term& term, W below, const W& total, const Taken& taken,
                      const Uniform<W>& uniform) {
  TokenId pending = -1;
  for (TokenId x = lo; x < hi; ++x) {
    const W mass = term(x);
    if (!(mass > W(0)) || taken.contains(x)) continue;
    if (pending >= 0 && uniform.less(below, total)) return pending;
    below += mass;
    pending = x;
  }
  return pending;
}

/// Draws a token with probability term(x) / total among those not taken; -1 when none has mass. `below` is mass that
/// comes before token 0, on which the uniform was found not to fall.
template <class W, class Term>
TokenId draw_token(int vocab, const Term& term, const W& total, const Taken& taken, const Uniform<W>& uniform,
                   W below = W(0)) {
  W below_last(0);
  int last = -1;  // the last block with any mass
  for (int lo = 0; lo < vocab; lo += kDecideBlock) {
    const int hi = std::min(lo + kDecideBlock, vocab);
    const W inside = block_sum<W>(lo, hi, term, taken);
    if (!(inside > W(0))) continue;
    last = lo;
    below_last = below;
    if (hi == vocab || uniform.less(below + inside, total)) break;
    below += inside;
  }
  if (last < 0) return -1;
  return draw_in_block(last, std::min(last + kDecideBlock, vocab), term, below_last, total, taken, uniform);
}

/// Probability of x under a row, in the type that decisions are computed in.
template <class Real>
auto row_term(const ProbRow<Real>& row) {
  return [values = row.dense().data()](TokenId x) { return Wide<Real>(values[x]); };
}

/// Mass of a row outside the taken tokens.
template <class Real>
Wide<Real> mass_outside(const ProbRow<Real>& row, const Taken& taken) {
  using W = Wide<Real>;
  if (taken.empty()) return W(1);
  if (row.is_point()) return W(taken.contains(row.point_token()) ? 0 : 1);
  W inside(0);
  Taken before = taken;
  for (NodeId n = taken.first; n != taken.end; n = taken.tree->next_sibling(n)) {
    before.end = n;
    if (!before.contains(taken.tree->token(n))) inside += row[taken.tree->token(n)];
  }
  const W outside = W(1) - inside;
  // What is left of a peaked row would be mostly rounding: sum it instead.
  if (outside > W(0.125)) return outside;
  return sum_terms<W>(row.vocab(), row_term(row), taken);
}

template <class Real>
TokenId draw_from_row(const ProbRow<Real>& row, const Taken& taken, const Uniform<Wide<Real>>& uniform) {
  if (row.is_point()) return taken.contains(row.point_token()) ? -1 : row.point_token();
  const auto term = row_term(row);
  const Wide<Real> total = sum_terms<Wide<Real>>(row.vocab(), term, taken);
  return draw_token(row.vocab(), term, total, taken, uniform);
}

/// The largest value of [lo, hi), hi > lo.
template <class Real>
Real block_max(std::span<const Real> values, int lo, int hi) {
  if constexpr (std::is_same_v<Real, float>) {
    return read_block(values.data() + lo, hi - lo).most;
  } else {
    return *std::max_element(values.begin() + lo, values.begin() + hi);
  }
}

/// The likeliest token, the lowest id among equals.
template <class Real>
TokenId argmax_token(const ProbRow<Real>& row) {
  if (row.is_point()) return row.point_token();
  const std::span<const Real> values = row.dense();
  int best_block = 0;
  Real best = values[0];
  for (int lo = 0; lo < row.vocab(); lo += kDecideBlock) {
    const Real most = block_max(values, lo, std::min(lo + kDecideBlock, row.vocab()));
    if (!(most > best)) continue;
    best = most;
    best_block = lo;
  }
  return static_cast<TokenId>(std::find(values.begin() + best_block, values.end(), best) - values.begin());
}

/// Throws Error naming `what`, the node and the value unless the row is a distribution: no NaN, nothing negative, sum 1
/// within 1e-4.
template <class Real>
void check_row(const ProbRow<Real>& row, const char* what, NodeId node) {
  if (row.is_point()) return;
  using W = Wide<Real>;
  const auto values = row.dense();
  // NaN shows in the sum, a negative value in its sign; a block is in the cache when it is read again.
  W total(0);
  bool suspicious = false;
  for (int lo = 0; lo < row.vocab(); lo += kDecideBlock) {
    const int hi = std::min(lo + kDecideBlock, row.vocab());
    if constexpr (std::is_same_v<Real, float>) {
      const FloatBlock block = read_block(values.data() + lo, hi - lo);
      total += static_cast<double>(block.sum);  // rounded far below the tolerance
      suspicious |= block.has_sign;
    } else {
      total += block_sum<W>(lo, hi, row_term(row), Taken{});
      suspicious |= std::any_of(values.begin() + lo, values.begin() + hi, [](const Real& p) { return p < Real(0); });
    }
  }
  const double off = static_cast<double>(total) - 1.0;
  const bool sums_to_1 = off <= 1e-4 && off >= -1e-4;
  if (sums_to_1 && !suspicious) return;
  for (TokenId x = 0; x < row.vocab(); ++x) {
    SPECMOE_CHECK(values[x] >= Real(0), what, " of node ", node, ": expected probabilities of 0 or more, got ",
                  values[x], " for token ", x);
  }
  if (sums_to_1) return;  // the sign was that of -0
  fail(what, " of node ", node, ": expected a row that sums to 1 within 1e-4, got ", static_cast<double>(total));
}

/// Throws Error unless draft and target speak about the same vocabulary and the draft has a row for each drawn node.
template <class Real>
void check_draft(const Draft<Real>& draft, const ProbRows<Real>& target) {
  SPECMOE_CHECK(draft.tree.size() >= 1, "draft: expected a tree with a root, got an empty one");
  SPECMOE_CHECK(static_cast<int>(draft.row_of.size()) == draft.tree.size(),
                "draft: expected row_of [N=", draft.tree.size(), "], got [", draft.row_of.size(), "]");
  SPECMOE_CHECK(draft.rows.vocab() == target.vocab(), "draft rows: expected the target's vocabulary of ",
                target.vocab(), " tokens, got ", draft.rows.vocab());
}

/// Throws Error naming the first node with more than one child.
inline void check_chain(const TokenTree& tree, const char* policy) {
  for (NodeId n = 0; n < tree.size(); ++n) {
    SPECMOE_CHECK(n + 1 >= tree.size() || tree.parent(n + 1) == n, policy, ": expected a chain, but node ",
                  tree.parent(n + 1), " branches; choose a policy for trees, such as naive");
  }
}

}  // namespace specmoe
