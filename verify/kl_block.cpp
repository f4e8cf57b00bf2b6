#include "core/acceptance.h"
#include "core/row_stats.h"
#include "verify/chain_walk.h"

namespace specmoe {
namespace {

/// Accepts a block for as long as the divergence of draft and target along it stays under a threshold.
///
/// draft    a chain of any law; a token chosen without a row counts as drawn from a point mass
/// scores   target_probs of the nodes on the accepted path
/// returns  the accepted block, and a token drawn from the target after it
/// lossy    the divergence is the sum of KL(draft || target) over the block's positions; threshold = 0 accepts nothing,
///          which is plain decoding; a token that the target excludes is never accepted
/// throws   Error when the tree branches
/// source   fuzzy speculative decoding, Holsman et al. 2025, arXiv:2502.20704; differs: the divergence adds up over the
///          block instead of starting anew at each position
class KlBlock : public PolicyOf<KlBlock> {
 public:
  explicit KlBlock(Params& params)
      : threshold_(params.real("threshold", 0.5, "divergence in nats that a block may reach")) {
    SPECMOE_CHECK(threshold_ >= 0.0, "kl_block: threshold must be 0 or more, got ", threshold_);
  }
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    check_chain(draft.tree, "kl_block");
    double sum = 0.0;
    const auto accept = [&](NodeId, NodeId child, const ProbRow<Real>& row) {
      sum += divergence(draft.row(child), row);
      return sum < threshold_ && row[draft.tree.token(child)] > Wide<Real>(0);
    };
    const auto emit = [&](NodeId node, NodeId, const ProbRow<Real>& row) {
      return draw_from_row(row, Taken{}, uniforms.at({node, Purpose::kNext, 0}));
    };
    walk_chain(draft, target, verdict, accept, emit);
  }

 private:
  double threshold_;
};

SPECMOE_REGISTER(acceptance_policies(), "kl_block", KlBlock, "lossy: blocks while KL(draft || target) is small");

}  // namespace
}  // namespace specmoe
