#include "tree/scored_topology.h"

namespace specmoe {
namespace {

/// The `nodes` likeliest texts under the drafter: asks about the best nodes not asked about yet until none of them can
/// have a child among the best.
///
/// batch = 1 asks no more than needed; larger batches take fewer drafter passes for the same tree.
/// source  SpecExec, Svirschevski et al. 2024, arXiv:2406.02532 (the search of its draft tree)
class BestFirst : public ScoredTopology<BestFirst> {
 public:
  explicit BestFirst(Params& params)
      : ScoredTopology(params, 8, "children of each expanded node", 1024),
        batch_(count_param(params, "batch", 4, "nodes asked about at a time", 64)) {}
  /// Only a node among the best is expanded, and those asked about in its batch.
  int max_grown_nodes() const override { return 1 + width_ * (nodes_ + 1) * batch_; }

  template <class Real>
  void choose_frontier(const GrowthView<Real>& view, std::span<const NodeId> added,
                       std::vector<NodeId>& frontier) const {
    if (!added.empty()) scored::score_added(view, added);
    for (NodeId node : view.frontier) view.draft.notes[node].flag |= scored::kAsked;
    // Scores never change, so a node that has fallen out of the best stays out: only survivors compete with new ones.
    frontier.clear();
    const NodeId first_new = added.empty() ? view.draft.tree.size() : added.front();
    for (NodeId n = 1; n < view.draft.tree.size(); ++n) {
      std::uint8_t& flag = view.draft.notes[n].flag;
      if (n >= first_new || (flag & scored::kAmongBest) != 0) frontier.push_back(n);
      flag &= static_cast<std::uint8_t>(~scored::kAmongBest);
    }
    scored::select_best(view.draft, frontier, static_cast<std::size_t>(nodes_));
    for (NodeId node : frontier) view.draft.notes[node].flag |= scored::kAmongBest;
    std::erase_if(frontier, [&](NodeId node) {
      return (view.draft.notes[node].flag & scored::kAsked) != 0 || view.draft.tree.depth(node) >= depth_;
    });
    scored::keep_best(view.draft, frontier, static_cast<std::size_t>(batch_));
  }

 private:
  int batch_;
};

SPECMOE_REGISTER(tree_policies(), "best_first", BestFirst, "the likeliest texts under the drafter (SpecExec)");

}  // namespace
}  // namespace specmoe
