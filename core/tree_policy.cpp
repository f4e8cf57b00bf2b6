#include "core/tree_policy.h"

namespace specmoe {
namespace {

template <class Real>
void all_below_max_depth(const TreePolicy& policy, const GrowthView<Real>& view, std::span<const NodeId> added,
                         std::vector<NodeId>& frontier) {
  for (NodeId node : added) {
    if (view.draft.tree.depth(node) < policy.max_depth()) frontier.push_back(node);
  }
}

}  // namespace

void TreePolicy::next_frontier(const GrowthView<float>& view, std::span<const NodeId> added,
                               std::vector<NodeId>& frontier) const {
  all_below_max_depth(*this, view, added, frontier);
}

void TreePolicy::next_frontier(const GrowthView<double>& view, std::span<const NodeId> added,
                               std::vector<NodeId>& frontier) const {
  all_below_max_depth(*this, view, added, frontier);
}

void TreePolicy::prune(const GrowthView<float>&, std::vector<NodeId>&) const {}
void TreePolicy::prune(const GrowthView<double>&, std::vector<NodeId>&) const {}

}  // namespace specmoe
