#pragma once

#include <algorithm>
#include <vector>

#include "tree/topology.h"

namespace specmoe {

/// A tree shape that is fixed beforehand: children are told apart by their rank, the order in which they are drawn.
class StaticShape {
 public:
  StaticShape() : children_(1), depths_(1, 0) {}

  /// Adds a child after those that `parent` has; returns its index.
  int add(int parent) {
    const int index = size();
    children_[parent].push_back(index);
    children_.emplace_back();
    depths_.push_back(depths_[parent] + 1);
    return index;
  }
  /// A run of `length` nodes below `parent`; returns the last.
  int add_path(int parent, int length) {
    for (int i = 0; i < length; ++i) parent = add(parent);
    return parent;
  }

  int size() const { return static_cast<int>(children_.size()); }
  int depth() const { return *std::max_element(depths_.begin(), depths_.end()); }
  int child_count(int index) const { return static_cast<int>(children_[index].size()); }
  int child(int index, int rank) const { return children_[index][rank]; }
  bool branches() const { return size() > depth() + 1; }

  /// The shape's node that `node` of a tree grown after it stands for.
  int index_of(const TokenTree& tree, NodeId node) const {
    if (node == TokenTree::kRoot) return 0;
    int rank = 0;
    for (NodeId n = tree.first_child(tree.parent(node)); n != node; n = tree.next_sibling(n)) ++rank;
    return child(index_of(tree, tree.parent(node)), rank);
  }

 private:
  std::vector<std::vector<int>> children_;
  std::vector<int> depths_;
};

/// The topology of a StaticShape, under any draft law. Drafters are asked only about nodes that have children.
class StaticTopology : public TopologyOf<StaticTopology> {
 public:
  DraftLaw law() const override { return law_; }
  int max_nodes() const override { return shape_.size(); }
  int max_depth() const override { return shape_.depth(); }
  bool branches() const override { return shape_.branches(); }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    for (NodeId node : view.frontier) {
      const int count = shape_.child_count(shape_.index_of(view.draft.tree, node));
      if (count > 0) growth.push_back({node, count});
    }
  }
  template <class Real>
  void choose_frontier(const GrowthView<Real>& view, std::span<const NodeId> added,
                       std::vector<NodeId>& frontier) const {
    for (NodeId node : added) {
      if (shape_.child_count(shape_.index_of(view.draft.tree, node)) > 0) frontier.push_back(node);
    }
  }

 protected:
  explicit StaticTopology(DraftLaw law) : law_(law) {}

  StaticShape shape_;
  DraftLaw law_;
};

/// The `law` parameter of a topology whose shape does not depend on tokens.
inline DraftLaw law_param(Params& params, DraftLaw fallback) {
  return law_from_name(params.text("law", law_name(fallback), "how siblings are drawn"));
}

/// An integer parameter between 1 and `most`.
inline int count_param(Params& params, std::string_view key, int fallback, std::string_view meaning, int most = 4096) {
  const int value = params.integer(key, fallback, meaning);
  SPECMOE_CHECK(value >= 1 && value <= most, params.name(), ": ", key, " must be 1 to ", most, ", got ", value);
  return value;
}

inline void check_size(const Params& params, const StaticShape& shape) {
  SPECMOE_CHECK(shape.size() <= 4096, params.name(), ": expected at most 4096 nodes, got ", shape.size(),
                "; ask for fewer");
}

}  // namespace specmoe
