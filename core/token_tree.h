#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/types.h"

namespace specmoe {

/// A drafted token tree. Node kRoot is the last emitted token, which is not yet in the cache; parent(n) < n for every
/// other node. A chain is a tree of width 1. Siblings keep the order in which they were drawn, duplicates included:
/// each draw is a node of its own, because acceptance rules depend on order and multiplicity.
class TokenTree {
 public:
  static constexpr NodeId kRoot = 0;
  static constexpr NodeId kNone = -1;

  explicit TokenTree(TokenId root_token = 0);

  /// Makes it a tree of the root alone; keeps capacity.
  void reset(TokenId root_token);

  /// Appends a child after its siblings. Throws Error when `parent` is not a node.
  NodeId add(NodeId parent, TokenId token);

  /// Drops all nodes but `kept` (ascending, downward closed, root included): kept[i] becomes node i. Throws Error else.
  void restrict_to(std::span<const NodeId> kept);

  int size() const { return static_cast<int>(tokens_.size()); }
  int drafted() const { return size() - 1; }
  TokenId token(NodeId n) const { return tokens_[n]; }
  NodeId parent(NodeId n) const { return parents_[n]; }
  int depth(NodeId n) const { return depths_[n]; }
  int max_depth() const;
  NodeId first_child(NodeId n) const { return first_child_[n]; }
  NodeId next_sibling(NodeId n) const { return next_sibling_[n]; }
  bool is_leaf(NodeId n) const { return first_child_[n] == kNone; }
  int child_count(NodeId n) const;

  /// [size()], parents()[kRoot] = kNone.
  std::span<const NodeId> parents() const { return parents_; }
  std::span<const TokenId> tokens() const { return tokens_; }
  std::span<const NodeId> next_siblings() const { return next_sibling_; }

 private:
  void link(NodeId node);

  std::vector<TokenId> tokens_;
  std::vector<NodeId> parents_;
  std::vector<std::int32_t> depths_;
  std::vector<NodeId> first_child_;
  std::vector<NodeId> last_child_;
  std::vector<NodeId> next_sibling_;
};

}  // namespace specmoe
