#include <algorithm>
#include <array>
#include <cmath>
#include <span>

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
    Band band;
    const auto accept = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
      const auto [p, q] = Residual(draft, node, row, false).ratio(child);
      const Uniform<W> u = uniforms.at({child, Purpose::kAccept, 0});
      if (u.less(p, q)) return true;
      band = divergence_ > 0.0 && !row.is_point() ? solve_band(row, draft.row(child)) : Band{};
      return band.a < 1.0 && u.less(p, W(W(band.a) * q));
    };
    const auto emit = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
      const Uniform<W> u = uniforms.at({node, Purpose::kNext, 0});
      if (child == TokenTree::kNone) return draw_from_row(row, Taken{}, u);
      if (band.a < 1.0) return draw_shortfall(row, draft.row(child), band, u);
      Residual residual(draft, node, row, false);
      residual.reject(child);
      return residual.draw(u);
    };
    walk_chain(draft, target, verdict, accept, emit);
  }

 private:
  /// Where the clipped law is cut: out = min(max(q, t p), p / a).
  struct Band {
    double a = 1.0;
    double t = 1.0;  // 1 / b
  };

  static constexpr double kTolerance = 1e-12;
  static constexpr double kFloatTolerance = 1e-6;  // what float sums over a vocabulary carry

  /// sum (t p - q)+, and its derivative by t.
  struct Raised {
    double sum = 0.0;
    double slope = 0.0;
  };

  /// Tokens sorted into bins by ln(p / q): solving for a then takes one pass over the vocabulary. With fewer tokens
  /// than bins the sums are exact.
  struct Bins {
    static constexpr int kCount = 192;
    static constexpr double kPerNat = 6.0;
    struct Bin {
      double p = 0.0;
      double q = 0.0;
      double divergence = 0.0;  // sum p ln(p / q)
    };
    std::array<Bin, kCount> bins;
    int used = 0;

    std::span<const Bin> filled() const { return {bins.data(), static_cast<std::size_t>(used)}; }
  };

  /// Tokens that neither row gives this much share a bin whatever their ratio; only a is approximated by it, never the
  /// normalisation of what is emitted.
  static constexpr double kTail = 0x1p-18;

  template <class Real>
  static Bins sort_into_bins(const ProbRow<Real>& p, const ProbRow<Real>& q) {
    Bins bins;
    double tail_p = 0.0;
    double tail_q = 0.0;
    for (TokenId x = 0; x < p.vocab(); ++x) {
      const auto target = static_cast<double>(p[x]);
      const auto drawn = static_cast<double>(q[x]);
      if (target < kTail && drawn < kTail) {
        tail_p += target;
        tail_q += drawn;
        continue;
      }
      double log_ratio = target > 0.0 ? 1e3 : -1e3;
      if (target > 0.0 && drawn > 0.0) log_ratio = static_cast<double>(fast_log(static_cast<float>(target / drawn)));
      const double place = log_ratio * Bins::kPerNat + 0.5 * Bins::kCount;
      auto& bin = bins.bins[static_cast<int>(std::clamp(place, 0.0, Bins::kCount - 1.0))];
      bin.p += target;
      bin.q += drawn;
      if (target > 0.0 && drawn > 0.0) bin.divergence += target * log_ratio;
    }
    bins.bins[Bins::kCount / 2].p += tail_p;
    bins.bins[Bins::kCount / 2].q += tail_q;
    for (const auto& bin : bins.bins) {
      if (bin.p > 0.0 || bin.q > 0.0) bins.bins[bins.used++] = bin;
    }
    return bins;
  }

  /// The t for which the clipped law sums to 1 within `tolerance`, that is raised(t) = cut. Raised is convex and grows,
  /// so Newton steps come down to it, after at most one from below.
  template <class RaisedAt>
  static double solve_t(double cut, double t, double tolerance, const RaisedAt& raised_at) {
    for (int i = 0; i < 50; ++i) {
      const Raised raised = raised_at(t);
      const double excess = raised.sum - cut;
      if (std::abs(excess) <= tolerance || !(raised.slope > 0.0)) break;
      t = std::clamp(t - excess / raised.slope, 0.0, 1.0);
    }
    return t;
  }

  /// Sets band.t for band.a and returns KL(p || out).
  static double divergence_at(const Bins& bins, Band& band) {
    double cut = 0.0;
    for (const auto& bin : bins.filled()) cut += std::max(bin.q - bin.p / band.a, 0.0);
    band.t = solve_t(cut, 1.0, kTolerance, [&bins](double t) {
      Raised raised;
      for (const auto& bin : bins.filled()) {
        raised.sum += std::max(bin.p * t - bin.q, 0.0);
        raised.slope += bin.p * t > bin.q ? bin.p : 0.0;
      }
      return raised;
    });
    const double log_t = std::log(band.t);
    const double log_a = std::log(band.a);
    double sum = 0.0;
    for (const auto& bin : bins.filled()) {
      if (bin.q < bin.p * band.t) {
        sum -= bin.p * log_t;
      } else if (bin.q > bin.p / band.a) {
        sum += bin.p * log_a;
      } else {
        sum += bin.divergence;
      }
    }
    return sum;
  }

  /// The least a whose divergence stays within the budget, with its t.
  template <class Real>
  Band solve_band(const ProbRow<Real>& p, const ProbRow<Real>& q) const {
    const Bins bins = sort_into_bins(p, q);
    double lo = 0.0;
    Band best;
    for (int i = 0; i < 24; ++i) {
      Band band{.a = 0.5 * (lo + best.a)};
      if (divergence_at(bins, band) <= divergence_) {
        best = band;
      } else {
        lo = band.a;
      }
    }
    return best;
  }

  /// One of norm((t p - q)+), t solved again for the rows themselves.
  template <class Real>
  static TokenId draw_shortfall(const ProbRow<Real>& p, const ProbRow<Real>& q, const Band& band,
                                const Uniform<Wide<Real>>& uniform) {
    using W = Wide<Real>;
    const double cut = pair_sum(p, q, [&band](auto target, auto drawn) {
      return std::max(drawn - target / static_cast<decltype(target)>(band.a), decltype(target)(0));
    });
    const W t(solve_t(cut, band.t, std::is_same_v<Real, float> ? kFloatTolerance : kTolerance, [&p, &q](double at) {
      return Raised{pair_sum(p, q,
                             [at](auto target, auto drawn) {
                               return std::max(target * static_cast<decltype(target)>(at) - drawn, decltype(target)(0));
                             }),
                    pair_sum(p, q, [at](auto target, auto drawn) {
                      return target * static_cast<decltype(target)>(at) > drawn ? target : decltype(target)(0);
                    })};
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
