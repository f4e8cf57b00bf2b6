#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>
#include <vector>

#include "core/draft.h"
#include "core/float_block.h"
#include "core/prob_rows.h"
#include "core/uniforms.h"
#include "kernels/check.h"
#include "kernels/host_device.h"

namespace specmoe {

/// What decides about probability rows is written once, for the CPU, the prover and devices (verify/verify_tree.h). It
/// knows of a row's type that it is a ProbRow or derived from one, and how it goes through vocabularies: Row::Team.
/// Code for devices cannot throw; see the refuse_ functions.

/// Tokens taken out of a row: those of the siblings from `first` up to, not including, `end`. With `points_only`, of
/// those siblings alone that were chosen without a row. Valid until the tree changes.
struct Taken {
  const TokenId* tokens = nullptr;
  const NodeId* next_sibling = nullptr;
  const std::int32_t* row_of = nullptr;
  NodeId first = TokenTree::kNone;
  NodeId end = TokenTree::kNone;
  bool points_only = false;

  /// Draft: as specmoe::Draft.
  template <class Draft>
  SPECMOE_HD static Taken children_before(const Draft& draft, NodeId parent, NodeId end, bool points_only = false) {
    return {draft.tree.tokens().data(),
            draft.tree.next_siblings().data(),
            draft.row_of.data(),
            draft.tree.first_child(parent),
            end,
            points_only};
  }
  SPECMOE_HD bool empty() const { return first == end; }
  SPECMOE_HD bool contains(TokenId x) const {
    return any([x](TokenId token) { return token == x; });
  }
  /// Whether a token in [lo, hi) is taken.
  SPECMOE_HD bool touches(TokenId lo, TokenId hi) const {
    return any([lo, hi](TokenId token) { return lo <= token && token < hi; });
  }
  template <class Condition>
  SPECMOE_HD bool any(Condition condition) const {
    for (NodeId n = first; n != end; n = next_sibling[n]) {
      if (points_only && row_of[n] >= 0) continue;
      if (condition(tokens[n])) return true;
    }
    return false;
  }
  /// Calls see(token) for each distinct token of the siblings, whether chosen without a row or not.
  template <class See>
  SPECMOE_HD void for_each_token(const See& see) const {
    Taken before = *this;
    for (NodeId n = first; n != end; n = next_sibling[n]) {
      before.end = n;
      if (!before.contains(tokens[n])) see(tokens[n]);
    }
  }
};

/// Tokens per block. Sums run block by block in eight lanes, one order whatever the caller, and a draw finds its block
/// before its token.
inline constexpr int kDecideBlock = 256;
inline constexpr int kDecideLanes = 8;

/// Sum of term(x) over x in [lo, hi) that are not taken.
template <class W, class Term>
W block_sum(int lo, int hi, const Term& term, const Taken& taken) {
  constexpr int kLanes = kDecideLanes;
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

/// The CPU's team: one thread does everything, when it is asked for.
struct OneThread {
  /// Calls see(lo, hi, sum of term over the block outside `taken`) for block after block until it says true.
  template <class W, class Term, class See>
  static void block_sums(int vocab, const Term& term, const Taken& taken, const See& see) {
    for (int lo = 0; lo < vocab; lo += kDecideBlock) {
      const int hi = std::min(lo + kDecideBlock, vocab);
      if (see(lo, hi, block_sum<W>(lo, hi, term, taken))) return;
    }
  }
  /// find(term) for a function that only looks at terms of the block [lo, hi).
  template <class W, class Term, class Find>
  static TokenId find_in_block(int, int, const Term& term, const Find& find) {
    return find(term);
  }
  template <class Real>
  static TokenId argmax(std::span<const Real> values);
  /// The sum of all values, rounded far below what check_row tolerates; `negative` tells whether one is below 0.
  template <class W, class Real>
  static W sum_and_sign(std::span<const Real> values, bool& negative);
  /// What a decision writes down for each node. One at a time: its memory is kept for the next.
  template <class T>
  class PerNode {
   public:
    explicit PerNode(int nodes) {
      if (memory().size() < static_cast<std::size_t>(nodes)) memory().resize(static_cast<std::size_t>(nodes));
    }
    void set(NodeId n, const T& value) { memory()[static_cast<std::size_t>(n)] = value; }
    const T& operator[](NodeId n) const { return memory()[static_cast<std::size_t>(n)]; }

   private:
    static std::vector<T>& memory() {
      static thread_local std::vector<T> values;
      return values;
    }
  };
};

template <class W, class Team = OneThread, class Term>
SPECMOE_HD W sum_terms(int vocab, const Term& term, const Taken& taken = {}) {
  W total(0);
  Team::template block_sums<W>(vocab, term, taken, [&total](int, int, const W& inside) {
    total += inside;
    return false;
  });
  return total;
}

/// The token of [lo, hi) where the running sum, `below` before lo, passes u * total. The last positive one is not asked
/// about: it takes what rounding leaves. -1 when nothing is positive.
template <class W, class Term, class Uniform>
SPECMOE_HD TokenId draw_in_block(int lo, int hi, const Term& term, W below, const W& total, const Taken& taken,
                                 const Uniform& uniform) {
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
template <class Team = OneThread, class W, class Term, class Uniform>
SPECMOE_HD TokenId draw_token(int vocab, const Term& term, const W& total, const Taken& taken, const Uniform& uniform,
                              W below = W(0)) {
  W below_last(0);
  int last = -1;  // the last block with any mass
  Team::template block_sums<W>(vocab, term, taken, [&](int lo, int hi, const W& inside) {
    if (!(inside > W(0))) return false;
    last = lo;
    below_last = below;
    if (hi == vocab || uniform.less(W(below + inside), total)) return true;
    below += inside;
    return false;
  });
  if (last < 0) return -1;
  const int end = last + kDecideBlock < vocab ? last + kDecideBlock : vocab;
  return Team::template find_in_block<W>(last, end, term, [&](const auto& terms) {
    return draw_in_block(last, end, terms, below_last, total, taken, uniform);
  });
}

/// Probability of x under a row, in the type that decisions are computed in.
template <class Row>
SPECMOE_HD auto row_term(const Row& row) {
  return [values = row.dense().data()](TokenId x) { return typename Row::Scalar(values[x]); };
}

/// Mass of a row outside the taken tokens.
template <class Row>
SPECMOE_HD typename Row::Scalar mass_outside(const Row& row, const Taken& taken) {
  using W = typename Row::Scalar;
  if (taken.empty()) return W(1);
  if (row.is_point()) return W(taken.contains(row.point_token()) ? 0 : 1);
  W inside(0);
  taken.for_each_token([&](TokenId token) { inside += row[token]; });
  const W outside = W(1) - inside;
  // What is left of a peaked row would be mostly rounding: sum it instead.
  if (outside > W(0.125)) return outside;
  return sum_terms<W, typename Row::Team>(row.vocab(), row_term(row), taken);
}

template <class Row, class Uniform>
SPECMOE_HD TokenId draw_from_row(const Row& row, const Taken& taken, const Uniform& uniform) {
  if (row.is_point()) return taken.contains(row.point_token()) ? -1 : row.point_token();
  const auto term = row_term(row);
  const auto total = sum_terms<typename Row::Scalar, typename Row::Team>(row.vocab(), term, taken);
  return draw_token<typename Row::Team>(row.vocab(), term, total, taken, uniform);
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

template <class Real>
TokenId OneThread::argmax(std::span<const Real> values) {
  const int vocab = static_cast<int>(values.size());
  int best_block = 0;
  Real best = values[0];
  for (int lo = 0; lo < vocab; lo += kDecideBlock) {
    const Real most = block_max(values, lo, std::min(lo + kDecideBlock, vocab));
    if (!(most > best)) continue;
    best = most;
    best_block = lo;
  }
  return static_cast<TokenId>(std::find(values.begin() + best_block, values.end(), best) - values.begin());
}

template <class W, class Real>
W OneThread::sum_and_sign(std::span<const Real> values, bool& negative) {
  W total(0);
  if constexpr (std::is_same_v<Real, float>) {
    bool has_sign = false;  // which -0 has as well
    for (std::size_t lo = 0; lo < values.size(); lo += kDecideBlock) {
      const auto count = static_cast<int>(std::min<std::size_t>(kDecideBlock, values.size() - lo));
      const FloatBlock block = read_block(values.data() + lo, count);
      total += static_cast<W>(block.sum);
      has_sign |= block.has_sign;
    }
    negative = has_sign && std::any_of(values.begin(), values.end(), [](float p) { return p < 0.0F; });
  } else {
    total = sum_terms<W>(static_cast<int>(values.size()), [&values](TokenId x) { return W(values[x]); });
    negative = std::any_of(values.begin(), values.end(), [](const Real& p) { return p < Real(0); });
  }
  return total;
}

/// The likeliest token, the lowest id among equals.
template <class Row>
SPECMOE_HD TokenId argmax_token(const Row& row) {
  return row.is_point() ? row.point_token() : Row::Team::argmax(row.dense());
}

/// Throws Error that names `what`, the node and the value: the row is no distribution.
template <class Real>
[[noreturn]] void refuse_row(const ProbRow<Real>& row, const char* what, NodeId node) {
  for (TokenId x = 0; x < row.vocab(); ++x) {
    SPECMOE_CHECK(row.dense()[x] >= Real(0), what, " of node ", node, ": expected probabilities of 0 or more, got ",
                  row.dense()[x], " for token ", x);
  }
  fail(what, " of node ", node, ": expected a row that sums to 1 within 1e-4, got ",
       static_cast<double>(sum_terms<Wide<Real>>(row.vocab(), row_term(row))));
}

/// Throws Error: the row that `node` was drawn from excludes its token.
template <class Real>
[[noreturn]] void refuse_token(const ProbRow<Real>&, NodeId node, TokenId token) {
  fail("draft row of node ", node, ": gives its own token ", token, " probability 0");
}

/// Throws Error naming `what`, the node and the value unless the row is a distribution: no NaN, nothing negative, sum 1
/// within 1e-4.
template <class Row>
SPECMOE_HD void check_row(const Row& row, const char* what, NodeId node) {
  if (row.is_point()) return;
  bool negative = false;  // NaN shows in the sum
  const auto total = Row::Team::template sum_and_sign<typename Row::Scalar>(row.dense(), negative);
  const double off = static_cast<double>(total) - 1.0;
  if (negative || !(off <= 1e-4 && off >= -1e-4)) refuse_row(row, what, node);
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
