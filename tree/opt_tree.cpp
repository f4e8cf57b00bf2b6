#include "tree/scored_topology.h"

namespace specmoe {
namespace {

/// Adds levels for as long as the expected accepted length of the best `nodes` nodes grows by enough.
///
/// The expectation is the sum of the drafter's path probabilities; the final tree is the best `nodes` nodes of all.
/// source  OPT-Tree, Wang et al. 2024, arXiv:2406.17276
class OptTree : public ScoredTopology<OptTree> {
 public:
  explicit OptTree(Params& params)
      : ScoredTopology(params, 10, "nodes expanded per level, and children of each"),
        threshold_(params.real("threshold", 0.1, "expected tokens that one more level must add")) {
    SPECMOE_CHECK(threshold_ >= 0.0, "opt_tree: threshold must be 0 or more, got ", threshold_);
  }

  template <class Real>
  void choose_frontier(const GrowthView<Real>& view, std::span<const NodeId> added,
                       std::vector<NodeId>& frontier) const {
    if (added.empty()) return;
    scored::score_added(view, added);
    if (view.draft.tree.depth(added.front()) >= depth_) return;
    const double before = expected_accepted(view.draft, added.front(), frontier);
    const double after = expected_accepted(view.draft, view.draft.tree.size(), frontier);
    frontier.clear();
    if (after - before <= threshold_) return;
    frontier.assign(added.begin(), added.end());
    scored::keep_best(view.draft, frontier, static_cast<std::size_t>(width_));
  }

 private:
  /// Sum of the path probabilities of the best `nodes_` of the drafted nodes before `end`.
  template <class Real>
  double expected_accepted(const Draft<Real>& draft, NodeId end, std::vector<NodeId>& scratch) const {
    scratch.clear();
    for (NodeId n = 1; n < end; ++n) scratch.push_back(n);
    scored::keep_best(draft, scratch, static_cast<std::size_t>(nodes_));
    double sum = 0.0;
    for (NodeId n : scratch) sum += std::exp(draft.notes[n].score);
    return sum;
  }

  double threshold_;
};

SPECMOE_REGISTER(tree_policies(), "opt_tree", OptTree, "levels while the expected accepted length grows (OPT-Tree)");

}  // namespace
}  // namespace specmoe
