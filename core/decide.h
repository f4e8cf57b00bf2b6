#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "core/draft.h"
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

/// Draws a token with probability term(x) / total among those not taken; -1 when none has mass.
template <class W, class Term>
TokenId draw_token(int vocab, const Term& term, const W& total, const Taken& taken, const Uniform<W>& uniform) {
  W below(0);
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

/// The likeliest token, the lowest id among equals.
template <class Real>
TokenId argmax_token(const ProbRow<Real>& row) {
  if (row.is_point()) return row.point_token();
  const auto values = row.dense();
  return static_cast<TokenId>(std::max_element(values.begin(), values.end()) - values.begin());
}

/// Throws Error naming `what`, the node and the value unless the row is a distribution: no NaN, nothing negative, sum 1
/// within 1e-4.
template <class Real>
void check_row(const ProbRow<Real>& row, const char* what, NodeId node) {
  if (row.is_point()) return;
  using W = Wide<Real>;
  using std::abs;
  const auto values = row.dense();
  const auto magnitude = [&values](TokenId x) { return W(abs(values[x])); };
  const W total = sum_terms<W>(row.vocab(), row_term(row));
  // Equal in every bit when nothing is negative, because both sums take the same order.
  const bool sound = total == sum_terms<W>(row.vocab(), magnitude);
  if (sound && abs(static_cast<double>(total) - 1.0) <= 1e-4) return;
  for (TokenId x = 0; x < row.vocab(); ++x) {
    SPECMOE_CHECK(values[x] >= Real(0), what, " of node ", node, ": expected probabilities of 0 or more, got ",
                  values[x], " for token ", x);
  }
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

/// What is left of the target's row at a node while its children are rejected one by one.
///
/// The residual is kept as max(p - c q, 0) / mass with the two scalars c and mass, on the tokens that are not taken, so
/// no vocabulary row is stored. Children drawn from different rows chain such steps.
template <class Real>
class Residual {
 public:
  using W = Wide<Real>;

  /// without_replacement  the tokens of rejected children are out of the draft row of those after them, and out of the
  ///                      residual; otherwise this holds only for children chosen without a row
  Residual(Draft<Real>& draft, NodeId node, ProbRow<Real> target, bool without_replacement)
      : draft_(draft),
        target_(target),
        without_replacement_(without_replacement),
        taken_(Taken::children_before(draft, node, draft.tree.first_child(node), !without_replacement)) {}

  /// r(x) / q(x) of a child's token, q being the law it was drawn by after its earlier siblings.
  struct Ratio {
    W residual;
    W drawn;
  };
  Ratio ratio(NodeId child) const {
    const TokenId x = draft_.tree.token(child);
    const ProbRow<Real> q = draft_.row(child);
    SPECMOE_CHECK(q[x] > W(0), "draft row of node ", child, ": gives its own token ", x, " probability 0");
    return {at(x) * left(q, child), mass_ * q[x]};
  }

  /// Makes it norm((weight r - q)+), for a child that was rejected with acceptance weight `weight`; returns the mass of
  /// that difference. When it is 0 (p = q but for rounding) nothing is left to draw from, and the residual stays.
  W reject(NodeId child, const W& weight = W(1)) {
    if (!(weight > W(0))) return W(0);
    const NodeId end = taken_.end;
    const int steps = step_count_;
    W rest(0);
    if (draft_.row_of[child] < 0) {
      const TokenId x = draft_.tree.token(child);
      const W own = at(x);
      taken_.end = draft_.tree.next_sibling(child);
      rest = mass_ - own;
      // A small difference would be mostly rounding: sum what is left instead.
      if (!(rest > mass_ * W(0.125))) rest = total();
    } else {
      const ProbRow<Real> q = draft_.row(child);
      const W c = mass_ / (weight * left(q, child));
      taken_.end = draft_.tree.next_sibling(child);
      push_step(draft_.row_of[child], q, c);
      rest = total();
      if (!(rest > W(0))) pop_step(steps, c);
    }
    if (!(rest > W(0))) {
      taken_.end = end;
      return W(0);
    }
    const W difference = weight * rest / mass_;
    mass_ = rest;
    return difference;
  }

  /// A token of the residual.
  TokenId draw(const Uniform<W>& uniform) const {
    if (target_.is_point()) return target_.point_token();
    const TokenId x = with_term([&](const auto& term) {
      const bool whole = step_count_ == 0 && taken_.empty();
      const W sum = whole ? sum_terms<W>(target_.vocab(), term) : mass_;
      return draw_token(target_.vocab(), term, sum, taken_, uniform);
    });
    return x;
  }

 private:
  struct Step {
    std::int32_t row = -1;
    ProbRow<Real> q;
    W c = W(0);
  };
  static constexpr int kMaxSteps = 16;

  W at(TokenId x) const { return taken_.contains(x) ? W(0) : unmasked(x); }
  W unmasked(TokenId x) const {
    W value = target_[x];
    for (int i = 0; i < step_count_; ++i) value = std::max(W(value - steps_[i].c * steps_[i].q[x]), W(0));
    return value;
  }
  W total() const {
    if (target_.is_point()) return at(target_.point_token());
    return with_term([&](const auto& term) { return sum_terms<W>(target_.vocab(), term, taken_); });
  }
  /// Calls body with the cheapest function that gives unmasked(x).
  template <class Body>
  auto with_term(Body body) const {
    const Real* p = target_.dense().data();
    if (step_count_ == 0) return body([p](TokenId x) { return W(p[x]); });
    if (step_count_ == 1 && !steps_[0].q.is_point()) {
      return body([p, q = steps_[0].q.dense().data(), c = steps_[0].c](TokenId x) {
        return std::max(W(W(p[x]) - c * W(q[x])), W(0));
      });
    }
    return body([this](TokenId x) { return unmasked(x); });
  }
  /// Mass that the child's row had left when the child was drawn from it.
  W left(const ProbRow<Real>& q, NodeId child) const {
    if (!without_replacement_ || draft_.row_of[child] < 0) return W(1);
    Taken earlier = taken_;
    earlier.end = child;
    return mass_outside(q, earlier);
  }
  void push_step(std::int32_t row, const ProbRow<Real>& q, const W& c) {
    if (step_count_ > 0 && steps_[step_count_ - 1].row == row) {
      steps_[step_count_ - 1].c += c;
      return;
    }
    SPECMOE_CHECK(step_count_ < kMaxSteps, "children of one node: expected at most ", kMaxSteps,
                  " changes of the row they were drawn from; order them by row");
    steps_[step_count_++] = {row, q, c};
  }
  void pop_step(int count, const W& c) {
    if (step_count_ == count) steps_[count - 1].c -= c;
    step_count_ = count;
  }

  Draft<Real>& draft_;
  ProbRow<Real> target_;
  bool without_replacement_;
  Taken taken_;
  W mass_ = W(1);
  int step_count_ = 0;
  std::array<Step, kMaxSteps> steps_;
};

}  // namespace specmoe
