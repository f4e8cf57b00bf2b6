#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "verify/siblings.h"

namespace specmoe {
namespace {

/// Accepts the first of k independent draws with u rho q < p, rho chosen so that the residual just covers the rest.
///
/// draft    trees whose siblings were drawn independently from one row
/// scores   target_probs of the nodes on the accepted path
/// returns  accepted path and the recovered or bonus token; O(depth * (evaluations of beta) * V) time
/// throws   Error when the children of a node come from different rows, or from none
/// source   Sun et al. 2023 (SpecTr, k-SEQ), arXiv:2310.15141; differs: of equal siblings the accepted one's own
/// subtree
///          is followed
class KSeq : public PolicyOf<KSeq> {
 public:
  explicit KSeq(Params&) {}
  LawSet lossless_laws() const override { return {DraftLaw::kIid}; }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    NodeId node = TokenTree::kRoot;
    for (;;) {
      const ProbRow<Real> row = target.row(node);
      check_row(row, "target row", node);
      const NodeId child = judge_children(draft, node, row, uniforms, verdict);
      if (child == TokenTree::kNone) break;
      node = child;
    }
    accept_path(draft.tree, node, verdict);
  }

 private:
  /// beta(rho), the mass that one draw is accepted with.
  template <class Real>
  static Wide<Real> overlap(const ProbRow<Real>& p, const ProbRow<Real>& q, const Wide<Real>& rho) {
    using W = Wide<Real>;
    if (p.is_point()) return std::min(q[p.point_token()], W(W(1) / rho));
    if (q.is_point()) return std::min(W(1), W(p[q.point_token()] / rho));
    const W scale = W(1) / rho;
    return sum_terms<W>(p.vocab(), [a = p.dense().data(), b = q.dense().data(), scale](TokenId x) {
      return std::min(W(b[x]), W(W(a[x]) * scale));
    });
  }

  /// The probability that one of k draws is accepted.
  template <class W>
  static W any_of(int k, const W& beta) {
    W none(1);
    for (int i = 0; i < k; ++i) none *= W(1) - beta;
    return W(1) - none;
  }

  /// A rho in [1, k], within 1e-8 of the least, for which what is accepted of any token is at most its target mass:
  /// any_of(k, beta) <= rho beta.
  template <class Real>
  static Wide<Real> solve_rho(const ProbRow<Real>& p, const ProbRow<Real>& q, int k) {
    using W = Wide<Real>;
    const auto surplus = [&](double rho) {
      const auto beta = static_cast<double>(overlap(p, q, W(rho)));
      return any_of(k, beta) - rho * beta;
    };
    double lo = 1.0;
    double hi = k;
    double at_lo = surplus(lo);
    if (!(at_lo > 0.0)) return W(1);
    double at_hi = surplus(hi);
    // Regula falsi with the Illinois correction: the end that stays put counts half.
    for (int last = 0, i = 0; i < 100 && at_hi < -1e-10 && hi - lo > 1e-9; ++i) {
      const double rho = lo + (hi - lo) * at_lo / (at_lo - at_hi);
      const double value = surplus(rho);
      const int side = value > 0.0 ? 1 : -1;
      (side > 0 ? lo : hi) = rho;
      (side > 0 ? at_lo : at_hi) = value;
      if (side == last) (side > 0 ? at_hi : at_lo) *= 0.5;
      last = side;
    }
    return W(hi + 1e-9);
  }

  /// The accepted child, or kNone with verdict.next drawn.
  template <class Real>
  static NodeId judge_children(Draft<Real>& draft, NodeId node, const ProbRow<Real>& p,
                               UniformSource<Wide<Real>>& uniforms, Verdict& verdict) {
    using W = Wide<Real>;
    const Uniform<W> next = uniforms.at({node, Purpose::kNext, 0});
    const NodeId first = draft.tree.first_child(node);
    if (first == TokenTree::kNone) {
      verdict.next = draw_from_row(p, Taken{}, next);
      return TokenTree::kNone;
    }
    const int k = count_draws(draft, node);
    const ProbRow<Real> q = draft.row(first);
    check_row(q, "draft row", first);
    const W rho = solve_rho(p, q, k);
    for (NodeId child = first; child != TokenTree::kNone; child = draft.tree.next_sibling(child)) {
      const TokenId x = draft.tree.token(child);
      SPECMOE_CHECK(q[x] > W(0), "draft row of node ", child, ": gives its own token ", x, " probability 0");
      if (uniforms.at({child, Purpose::kAccept, 0}).less(p[x], rho * q[x])) return child;
    }
    verdict.next = draw_rest(p, q, rho, k, next);
    return TokenTree::kNone;
  }

  /// How many children a node has; throws unless all were drawn from one row.
  template <class Real>
  static int count_draws(const Draft<Real>& draft, NodeId node) {
    const std::int32_t row = draft.row_of[draft.tree.first_child(node)];
    int count = 0;
    for (NodeId n = draft.tree.first_child(node); n != TokenTree::kNone; n = draft.tree.next_sibling(n), ++count) {
      SPECMOE_CHECK(row >= 0 && draft.row_of[n] == row,
                    "k_seq: expected siblings drawn independently from one row, node ", n, " was not (draft law ",
                    law_name(draft.law), ")");
    }
    return count;
  }

  /// One of norm(p - min(q, p / rho) any_of(k, beta) / beta), what the draws leave uncovered.
  template <class Real>
  static TokenId draw_rest(const ProbRow<Real>& p, const ProbRow<Real>& q, const Wide<Real>& rho, int k,
                           const Uniform<Wide<Real>>& uniform) {
    using W = Wide<Real>;
    if (p.is_point()) return p.point_token();
    const W beta = overlap(p, q, rho);
    if (!(beta > W(0))) return draw_from_row(p, Taken{}, uniform);
    const W scale = W(1) / rho;
    const W share = any_of(k, beta) / beta;
    const auto draw = [&](const auto& term) {
      const W total = sum_terms<W>(p.vocab(), term);
      return total > W(0) ? draw_token(p.vocab(), term, total, Taken{}, uniform) : draw_from_row(p, Taken{}, uniform);
    };
    const auto left = [scale, share](const W& target, const W& drawn) {
      return std::max(W(target - std::min(drawn, W(target * scale)) * share), W(0));
    };
    if (q.is_point()) return draw([&](TokenId x) { return left(p[x], q[x]); });
    return draw([&, a = p.dense().data(), b = q.dense().data()](TokenId x) { return left(W(a[x]), W(b[x])); });
  }
};

SPECMOE_REGISTER(acceptance_policies(), "k_seq", KSeq, "k independent draws against p / rho (SpecTr)");

}  // namespace
}  // namespace specmoe
