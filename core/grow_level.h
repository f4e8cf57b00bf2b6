#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tree_policy.h"
#include "kernels/check.h"

namespace specmoe {

/// What the growth of one tree needs besides the draft; reused from step to step.
///
/// frontier_rows  [frontier.size()] row proposed for each frontier node, -1: none
struct GrowthState {
  std::vector<NodeId> frontier, added, kept;
  std::vector<std::int32_t> frontier_rows;
  std::vector<Growth> growth;
};

/// One level of one tree: the topology answers for the frontier, the children are drawn, the next frontier is chosen.
/// The engine and the prover both grow with this.
///
/// view()               the GrowthView that the topology may look at now
/// draw(i, growth, to)  draws children below frontier[i] and appends their ids
template <class Real, class View, class Draw>
void grow_level(const Draft<Real>& draft, const TreePolicy& tree, int max_depth, GrowthState& state, View view,
                Draw draw) {
  state.growth.clear();
  tree.expand(view(), state.growth);
  state.added.clear();
  for (const Growth& growth : state.growth) {
    const auto found = std::find(state.frontier.begin(), state.frontier.end(), growth.parent);
    SPECMOE_CHECK(found != state.frontier.end(), "the topology wants children below node ", growth.parent,
                  ", which is not in the frontier it was shown");
    draw(static_cast<std::size_t>(found - state.frontier.begin()), growth, state.added);
  }
  SPECMOE_CHECK(draft.tree.size() <= tree.max_grown_nodes(), "the topology grew ", draft.tree.size(),
                " nodes, its max_grown_nodes is ", tree.max_grown_nodes());
  state.kept.clear();
  tree.next_frontier(view(), state.added, state.kept);
  std::erase_if(state.kept, [&](NodeId node) { return draft.tree.depth(node) >= max_depth; });
  state.frontier.swap(state.kept);
}

/// Lets the topology choose among the nodes of a deterministic draft. state.kept holds its choice, empty for all.
template <class Real, class View>
void prune_grown(Draft<Real>& draft, const TreePolicy& tree, GrowthState& state, View view) {
  state.kept.clear();
  if (draft.law == DraftLaw::kDeterministic && draft.tree.size() > 1) tree.prune(view(), state.kept);
  if (!state.kept.empty()) {
    draft.tree.restrict_to(state.kept);
    for (std::size_t i = 0; i < state.kept.size(); ++i) draft.row_of[i] = draft.row_of[state.kept[i]];
    draft.row_of.resize(state.kept.size());
  }
  SPECMOE_CHECK(draft.tree.size() <= tree.max_nodes(), "the topology left ", draft.tree.size(),
                " nodes, its max_nodes is ", tree.max_nodes());
}

}  // namespace specmoe
