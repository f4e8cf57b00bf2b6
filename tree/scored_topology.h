#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tree/score_rule.h"
#include "tree/static_shape.h"

namespace specmoe {

/// Shared by topologies that score nodes by the drafter's probability of their text and keep the best: the score of a
/// node is the sum of ln q along its path, so no node scores above its parent.
///
/// Such choices look at drafted tokens, so children are always taken deterministically, the likeliest first.
namespace scored {

inline constexpr std::uint8_t kAsked = 1;      // was in a frontier
inline constexpr std::uint8_t kKept = 2;       // belongs to the final tree whatever else grows
inline constexpr std::uint8_t kAmongBest = 4;  // is one of the best nodes grown so far

/// Scores the nodes just added below the frontier. Without a row, the i-th proposed token counts as 2^-i.
template <class Real>
void score_added(const GrowthView<Real>& view, std::span<const NodeId> added) {
  const TokenTree& tree = view.draft.tree;
  for (std::size_t i = 0; i < view.frontier.size(); ++i) {
    const NodeId parent = view.frontier[i];
    view.draft.notes[parent].flag |= kAsked;
    double guess = 1.0;
    for (NodeId n = tree.first_child(parent); n != TokenTree::kNone; n = tree.next_sibling(n)) {
      if (n < added.front()) continue;
      guess *= 0.5;
      const int row = view.frontier_rows[i];
      const double q = row < 0 ? guess : static_cast<double>(view.draft.rows.row(row)[tree.token(n)]);
      view.draft.notes[n].score = child_score(view.draft.notes[parent].score, q);
    }
  }
}

/// Whether a comes before b.
template <class Real>
auto better(const Draft<Real>& draft) {
  const auto scored = [&draft](NodeId n) { return ScoredNode{draft.notes[n].score, draft.tree.depth(n), n}; };
  return [scored](NodeId a, NodeId b) { return scored(a).before(scored(b)); };
}

/// Leaves the `count` best of `nodes`, in any order.
template <class Real>
void select_best(const Draft<Real>& draft, std::vector<NodeId>& nodes, std::size_t count) {
  if (nodes.size() <= count) return;
  std::nth_element(nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(count), nodes.end(), better(draft));
  nodes.resize(count);
}

/// Leaves the `count` best of `nodes`, ascending.
template <class Real>
void keep_best(const Draft<Real>& draft, std::vector<NodeId>& nodes, std::size_t count) {
  select_best(draft, nodes, count);
  std::sort(nodes.begin(), nodes.end());
}

/// The root and the `count` best other nodes, ascending.
template <class Real>
void best_tree(const Draft<Real>& draft, int count, std::vector<NodeId>& kept) {
  kept.clear();
  for (NodeId n = 1; n < draft.tree.size(); ++n) kept.push_back(n);
  keep_best(draft, kept, static_cast<std::size_t>(count));
  kept.insert(kept.begin(), TokenTree::kRoot);
}

}  // namespace scored

/// What those topologies agree on: every frontier node gets `width` children, and the best `nodes` nodes are kept
/// unless `Shape` has a keep() of its own. `Shape` adds choose_frontier(); the bound on what grows is that of asking
/// about `width` nodes a level.
template <class Shape>
class ScoredTopology : public TopologyOf<Shape> {
 public:
  DraftLaw law() const override { return DraftLaw::kDeterministic; }
  int max_nodes() const override { return std::min(nodes_ + 1, this->max_grown_nodes()); }
  int max_grown_nodes() const override { return 1 + width_ + (depth_ - 1) * width_ * width_; }
  int max_depth() const override { return depth_; }
  bool branches() const override { return width_ > 1; }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    for (NodeId node : view.frontier) growth.push_back({node, width_});
  }
  template <class Real>
  void keep(const GrowthView<Real>& view, std::vector<NodeId>& kept) const {
    scored::best_tree(view.draft, nodes_, kept);
  }

 protected:
  ScoredTopology(Params& params, int depth, std::string_view width_meaning, int most_nodes = 4096)
      : nodes_(count_param(params, "nodes", 32, "drafted nodes that are kept", most_nodes)),
        depth_(count_param(params, "depth", depth, "most tokens on a path", 64)),
        width_(count_param(params, "width", 8, width_meaning, 64)) {}

  const int nodes_;
  const int depth_;
  const int width_;
};

}  // namespace specmoe
