#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/acceptance.h"
#include "core/row_stats.h"
#include "verify/chain_walk.h"

namespace specmoe {
namespace {

/// Emits the law that accepts most among those whose divergence from the target is at most a given one: the draft's,
/// clipped to a band around the target, out = min(max(q, p / b), p / a) with a <= 1 <= b.
///
/// draft    a chain of any law; a token chosen without a row counts as drawn from a point mass
/// scores   target_probs of the nodes on the accepted path
/// lossy    KL(p || out) is `divergence` nats at each position, or q itself where that is nearer; divergence = 0 is
///          `token`, bit for bit
/// throws   Error when the tree branches
/// source   mentored decoding, Tran-Thien 2023 (github.com/vivien000/mentored_decoding); differs: a is solved for only
///          when a token would be rejected at a = 1
class Mentored : public PolicyOf<Mentored> {
 public:
  explicit Mentored(Params& params)
      : divergence_(params.real("divergence", 0.1, "KL(target || emitted) in nats allowed at each position")) {
    SPECMOE_CHECK(divergence_ >= 0.0, "mentored: divergence must be 0 or more, got ", divergence_);
  }
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "mentored");
    using W = Wide<Real>;
    double a = 1.0;
    const auto accept = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
      const auto [p, q] = Residual(draft, node, row, false).ratio(child);
      const Uniform<W> u = uniforms.at({child, Purpose::kAccept, 0});
      if (u.less(p, q)) return true;
      a = divergence_ > 0.0 && !row.is_point() ? solve_a(row, draft.row(child)) : 1.0;
      return a < 1.0 && u.less(p, W(W(a) * q));
    };
    const auto emit = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
      const Uniform<W> u = uniforms.at({node, Purpose::kNext, 0});
      if (child == TokenTree::kNone) return draw_from_row(row, Taken{}, u);
      if (a < 1.0) return draw_shortfall(row, draft.row(child), a, u);
      Residual residual(draft, node, row, false);
      residual.reject(child);
      return residual.draw(u);
    };
    walk_chain(draft, target, verdict, accept, emit);
  }

 private:
  /// Tokens sorted into bins by ln(p / q): solving for a then takes one pass over the vocabulary. With fewer tokens
  /// than bins the sums are exact.
  struct Bins {
    static constexpr int kCount = 192;
    static constexpr double kPerNat = 6.0;
    std::array<double, kCount> p{};
    std::array<double, kCount> q{};
    std::array<double, kCount> divergence{};  // sum p ln(p / q)
  };

  /// Tokens that neither row gives this much share a bin whatever their ratio; only a is approximated by it, never the
  /// normalisation of what is emitted.
  static constexpr double kTail = 0x1p-18;

  template <class Real>
  static Bins sort_into_bins(const ProbRow<Real>& p, const ProbRow<Real>& q) {
    Bins bins;
    for (TokenId x = 0; x < p.vocab(); ++x) {
      const auto target = static_cast<double>(p[x]);
      const auto drawn = static_cast<double>(q[x]);
      if (target < kTail && drawn < kTail) {
        bins.p[Bins::kCount / 2] += target;
        bins.q[Bins::kCount / 2] += drawn;
        continue;
      }
      double log_ratio = target > 0.0 ? 1e3 : -1e3;
      if (target > 0.0 && drawn > 0.0) log_ratio = static_cast<double>(fast_log(static_cast<float>(target / drawn)));
      const double place = log_ratio * Bins::kPerNat + 0.5 * Bins::kCount;
      const int bin = static_cast<int>(std::clamp(place, 0.0, Bins::kCount - 1.0));
      bins.p[bin] += target;
      bins.q[bin] += drawn;
      if (target > 0.0 && drawn > 0.0) bins.divergence[bin] += target * log_ratio;
    }
    return bins;
  }

  /// 1 / b for which the clipped law sums to 1, that is raised(1 / b) = cut. Raised is convex and grows, so Newton
  /// steps from 1 come down to it. raised_and_slope(t) gives sum (t p - q)+ and its derivative.
  template <class RaisedAndSlope>
  static double solve_inverse_b(double cut, const RaisedAndSlope& raised_and_slope) {
    double t = 1.0;
    for (int i = 0; i < 50; ++i) {
      const auto [raised, slope] = raised_and_slope(t);
      if (!(raised - cut > 1e-12) || !(slope > 0.0)) break;
      t = std::max(t - (raised - cut) / slope, 0.0);
    }
    return t;
  }

  static double divergence_at(const Bins& bins, double a) {
    double cut = 0.0;
    for (int i = 0; i < Bins::kCount; ++i) cut += std::max(bins.q[i] - bins.p[i] / a, 0.0);
    const double t = solve_inverse_b(cut, [&bins](double at) {
      std::pair<double, double> sums;
      for (int i = 0; i < Bins::kCount; ++i) {
        const double raised = bins.p[i] * at - bins.q[i];
        sums.first += std::max(raised, 0.0);
        sums.second += raised > 0.0 ? bins.p[i] : 0.0;
      }
      return sums;
    });
    double sum = 0.0;
    for (int i = 0; i < Bins::kCount; ++i) {
      if (bins.q[i] < bins.p[i] * t) {
        sum -= bins.p[i] * std::log(t);
      } else if (bins.q[i] > bins.p[i] / a) {
        sum += bins.p[i] * std::log(a);
      } else {
        sum += bins.divergence[i];
      }
    }
    return sum;
  }

  /// The least a whose divergence stays within the budget.
  template <class Real>
  double solve_a(const ProbRow<Real>& p, const ProbRow<Real>& q) const {
    const Bins bins = sort_into_bins(p, q);
    double lo = 0.0;
    double hi = 1.0;
    for (int i = 0; i < 24; ++i) {
      const double a = 0.5 * (lo + hi);
      (divergence_at(bins, a) <= divergence_ ? hi : lo) = a;
    }
    return hi;
  }

  /// One of norm((p / b - q)+).
  template <class Real>
  static TokenId draw_shortfall(const ProbRow<Real>& p, const ProbRow<Real>& q, double a,
                                const Uniform<Wide<Real>>& uniform) {
    using W = Wide<Real>;
    const auto sum = [&p, &q](const auto& f) {
      if (q.is_point()) {
        return sum_terms<double>(p.vocab(),
                                 [&](TokenId x) { return f(static_cast<double>(p[x]), static_cast<double>(q[x])); });
      }
      return sum_terms<double>(p.vocab(), [&f, b = p.dense().data(), d = q.dense().data()](TokenId x) {
        return f(static_cast<double>(b[x]), static_cast<double>(d[x]));
      });
    };
    const double cut = sum([a](double target, double drawn) { return std::max(drawn - target / a, 0.0); });
    const W t(solve_inverse_b(cut, [&sum](double at) {
      return std::pair<double, double>(
          sum([at](double target, double drawn) { return std::max(target * at - drawn, 0.0); }),
          sum([at](double target, double drawn) { return target * at > drawn ? target : 0.0; }));
    }));
    const auto shortfall = [&p, &q, &t](TokenId x) { return std::max(W(p[x] * t - q[x]), W(0)); };
    const W total = sum_terms<W>(p.vocab(), shortfall);
    if (!(total > W(0))) return draw_from_row(p, Taken{}, uniform);
    return draw_token(p.vocab(), shortfall, total, Taken{}, uniform);
  }

  double divergence_;
};

SPECMOE_REGISTER(acceptance_policies(), "mentored", Mentored, "lossy: most accepted for a given KL(p || out)");

}  // namespace
}  // namespace specmoe
