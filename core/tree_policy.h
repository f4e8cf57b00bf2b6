#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/draft.h"
#include "core/registry.h"

namespace specmoe {

/// `children` draws below `parent`.
struct Growth {
  NodeId parent = TokenTree::kRoot;
  int children = 0;
};

/// A shape that is told level by level before anything is drafted: what whole steps on a device grow.
///
/// widths    children of each frontier node, level by level
/// frontier  most nodes of a level that the drafter is asked about next, those with the best scores; 0: all
/// kept      drafted nodes that a deterministic draft keeps in the end, those with the best scores; 0: all
/// A node's score is the sum of ln q along its path (tree/score_rule.h).
struct LevelPlan {
  std::vector<int> widths;
  int frontier = 0;
  int kept = 0;
};

/// What a topology may look at: the tree so far with the tokens of nodes already in it, and the rows that the drafter
/// proposed for the frontier. The tokens that its answer will add are drawn afterwards, so it cannot depend on them.
template <class Real>
struct GrowthView {
  Draft<Real>& draft;
  /// Nodes just asked about.
  std::span<const NodeId> frontier;
  /// [frontier.size()] row proposed for each, -1 when the drafter gave tokens instead, or nothing.
  std::span<const std::int32_t> frontier_rows;
};

/// The shape of the drafted tree. Stateless between steps unless it says so; one object serves all sequences.
class TreePolicy {
 public:
  virtual ~TreePolicy() = default;
  /// How children are drawn when the drafter proposes rows and the temperature is above 0.
  virtual DraftLaw law() const = 0;
  /// Most nodes of a tree, root included.
  virtual int max_nodes() const = 0;
  /// Most nodes while growing, before prune().
  virtual int max_grown_nodes() const { return max_nodes(); }
  virtual int max_depth() const = 0;
  virtual bool branches() const = 0;
  /// True when it looks at no probabilities and gives a node at most one child: a greedy draft then needs only the
  /// drafter's argmax, and no row is ever normalised.
  virtual bool argmax_suffices() const { return false; }
  /// The same shape as data; nothing when it cannot be told beforehand. Then only the host grows it.
  virtual std::optional<LevelPlan> level_plan() const { return std::nullopt; }

  /// How many children each frontier node gets (0: none). Called level by level, first with the root.
  virtual void expand(const GrowthView<float>& view, std::vector<Growth>& growth) const = 0;
  virtual void expand(const GrowthView<double>& view, std::vector<Growth>& growth) const = 0;

  /// Which of the nodes just added the drafter is asked about next; by default all that may still have children.
  virtual void next_frontier(const GrowthView<float>& view, std::span<const NodeId> added,
                             std::vector<NodeId>& frontier) const;
  virtual void next_frontier(const GrowthView<double>& view, std::span<const NodeId> added,
                             std::vector<NodeId>& frontier) const;

  /// Which nodes of the grown tree are kept, ascending; only called for deterministic drafts, where choosing among
  /// drawn tokens is harmless. By default all (nothing written to kept).
  virtual void prune(const GrowthView<float>& view, std::vector<NodeId>& kept) const;
  virtual void prune(const GrowthView<double>& view, std::vector<NodeId>& kept) const;

  /// The step's outcome, for topologies that adapt: `accepted` nodes of this draft were kept. What they learn goes into
  /// draft.memory, so that sequences do not influence each other.
  virtual void observe(Draft<float>&, int /*accepted*/) const {}
  virtual void observe(Draft<double>&, int /*accepted*/) const {}
};

Registry<TreePolicy>& tree_policies();

}  // namespace specmoe
