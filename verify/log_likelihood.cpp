#include <cmath>

#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "core/row_stats.h"

namespace specmoe {
namespace {

/// Accepts the longest drafted text whose joint log-likelihood under the target is high enough; among equally long ones
/// the likeliest.
///
/// draft    any tree, any law
/// scores   target_probs of the nodes that can be reached
/// returns  accepted path, and a token drawn from the target after it
/// lossy    no accepted text has less than exp(least) of the target's probability; least = 0 accepts only what the
///          target is certain of
/// source   threshold verification of whole blocks as in Big Little Decoder, Kim et al. 2023, arXiv:2302.07863;
/// differs:
///          one threshold on the joint likelihood, where it rolls back at a single bad token
class LogLikelihood : public PolicyOf<LogLikelihood> {
 public:
  explicit LogLikelihood(Params& params)
      : least_(params.real("least", -3.0, "joint log-likelihood in nats that an accepted text must reach")) {
    SPECMOE_CHECK(least_ <= 0.0, "log_likelihood: least must be 0 or negative, got ", least_);
  }
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    Path best;
    search(draft.tree, target, Path{}, best);
    accept_path(draft.tree, best.node, verdict);
    const ProbRow<Real> row = target.row(best.node);
    check_row(row, "target row", best.node);
    verdict.next = draw_from_row(row, Taken{}, uniforms.at({best.node, Purpose::kNext, 0}));
  }

 private:
  struct Path {
    NodeId node = TokenTree::kRoot;
    double log_likelihood = 0.0;
  };

  template <class Real>
  void search(const TokenTree& tree, ProbRows<Real>& target, const Path& path, Path& best) const {
    const int deeper = tree.depth(path.node) - tree.depth(best.node);
    if (deeper > 0 || (deeper == 0 && path.log_likelihood > best.log_likelihood)) best = path;
    if (tree.is_leaf(path.node)) return;
    const ProbRow<Real> row = target.row(path.node);
    check_row(row, "target row", path.node);
    for (NodeId child = tree.first_child(path.node); child != TokenTree::kNone; child = tree.next_sibling(child)) {
      const double total = path.log_likelihood + std::log(static_cast<double>(row[tree.token(child)]));
      if (total >= least_) search(tree, target, Path{child, total}, best);
    }
  }

  double least_;
};

SPECMOE_REGISTER(acceptance_policies(), "log_likelihood", LogLikelihood,
                 "lossy: the longest text that is likely enough under the target");

}  // namespace
}  // namespace specmoe
