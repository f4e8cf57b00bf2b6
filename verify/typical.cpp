#include <algorithm>
#include <cmath>

#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "core/row_stats.h"

namespace specmoe {
namespace {

/// Accepts every token that the target finds typical enough, whatever the draft's probabilities; the longest such path
/// wins, among equals the likeliest.
///
/// draft    any tree, any law
/// scores   target_probs of the nodes that can be reached
/// returns  accepted path; the extra token is drawn from the target's typical tokens
/// lossy    emitted law: neither the target's nor any fixed function of it; at temperature 0 the greedy text
/// source   Cai et al. 2024 (Medusa), arXiv:2401.10774: p(x) > min(epsilon, delta exp(-H(p))); differs: H without
///          Medusa's 1e-5 inside the logarithm, and the extra token is drawn, not the argmax
class Typical : public PolicyOf<Typical> {
 public:
  explicit Typical(Params& params)
      : epsilon_(params.real("epsilon", 0.3, "tokens at least this likely always pass")),
        delta_(params.real("delta", 0.09, "share of exp(-entropy) that is enough")) {
    SPECMOE_CHECK(epsilon_ > 0.0 && epsilon_ <= 1.0, "typical: epsilon must be above 0 and at most 1, got ", epsilon_);
    SPECMOE_CHECK(delta_ > 0.0 && delta_ < 1.0, "typical: delta must lie between 0 and 1, got ", delta_);
  }
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    using W = Wide<Real>;
    check_draft(draft, target);
    Path best;
    search(draft.tree, target, Path{}, best);
    accept_path(draft.tree, best.node, verdict);
    const ProbRow<Real> row = target.row(best.node);
    check_row(row, "target row", best.node);
    if (row.is_point()) {
      verdict.next = row.point_token();
      return;
    }
    const W threshold(this->threshold(row));
    const auto typical = [p = row.dense().data(), &threshold](TokenId x) {
      return W(p[x]) > threshold ? W(p[x]) : W(0);
    };
    const W total = sum_terms<W>(row.vocab(), typical);
    verdict.next = draw_token(row.vocab(), typical, total, Taken{}, uniforms.at({best.node, Purpose::kNext, 0}));
  }

 private:
  struct Path {
    NodeId node = TokenTree::kRoot;
    double log_likelihood = 0.0;
  };

  template <class Real>
  double threshold(const ProbRow<Real>& row) const {
    return std::min(epsilon_, delta_ * std::exp(-entropy(row)));
  }

  /// Depth first through the typical nodes below path.node.
  template <class Real>
  void search(const TokenTree& tree, ProbRows<Real>& target, const Path& path, Path& best) const {
    const int deeper = tree.depth(path.node) - tree.depth(best.node);
    if (deeper > 0 || (deeper == 0 && path.log_likelihood > best.log_likelihood)) best = path;
    if (tree.is_leaf(path.node)) return;
    const ProbRow<Real> row = target.row(path.node);
    check_row(row, "target row", path.node);
    RunningEntropy<Real> entropy(row);
    for (NodeId child = tree.first_child(path.node); child != TokenTree::kNone; child = tree.next_sibling(child)) {
      const auto p = static_cast<double>(row[tree.token(child)]);
      if (!(p > 0.0)) continue;
      // p > delta exp(-H), put as a question about H.
      if (p > epsilon_ || entropy.exceeds(std::log(delta_ / p))) {
        search(tree, target, Path{child, path.log_likelihood + std::log(p)}, best);
      }
    }
  }

  double epsilon_;
  double delta_;
};

SPECMOE_REGISTER(acceptance_policies(), "typical", Typical, "lossy: p(x) above an entropy threshold (Medusa)");

}  // namespace
}  // namespace specmoe
