#pragma once

#include "core/acceptance.h"
#include "core/decide.h"
#include "kernels/host_device.h"

namespace specmoe {

// Tree, Draft, Rows and Verdict: as the types of these names, or what stands for them on a device.

/// Whether the paths from the root to a and to b, nodes of one depth, spell the same tokens.
template <class Tree>
SPECMOE_HD bool same_text(const Tree& tree, NodeId a, NodeId b) {
  while (a != b) {
    if (tree.token(a) != tree.token(b)) return false;
    a = tree.parent(a);
    b = tree.parent(b);
  }
  return true;
}

/// The first child with this token of any node that spells the same text as `node`, so duplicate siblings count as one
/// node with all their children; kNone if there is none.
template <class Tree>
SPECMOE_HD NodeId follow(const Tree& tree, NodeId node, TokenId token) {
  for (NodeId n = node + 1; n < tree.size(); ++n) {
    if (tree.token(n) != token || tree.depth(n) != tree.depth(node) + 1) continue;
    if (same_text(tree, tree.parent(n), node)) return n;
  }
  return TokenTree::kNone;
}

/// Writes the path from the root to `node` into verdict.accepted.
inline void accept_path(const TokenTree& tree, NodeId node, Verdict& verdict) {
  verdict.accepted.resize(tree.depth(node));
  for (NodeId n = node; n != TokenTree::kRoot; n = tree.parent(n)) verdict.accepted[tree.depth(n) - 1] = n;
}

/// Emits token after token, choose(node) being the one after `node`, for as long as the tree holds them.
template <class Tree, class Choose, class Verdict>
SPECMOE_HD void walk_tokens(const Tree& tree, const Choose& choose, Verdict& verdict) {
  NodeId node = TokenTree::kRoot;
  for (;;) {
    verdict.next = choose(node);
    const NodeId child = follow(tree, node, verdict.next);
    if (child == TokenTree::kNone) break;
    node = child;
  }
  accept_path(tree, node, verdict);
}

/// Follows the target's argmax, the lowest id among equals, for as long as the tree holds it.
template <class Draft, class Rows, class Verdict>
SPECMOE_HD void greedy_walk(const Draft& draft, Rows& target, Verdict& verdict) {
  walk_tokens(draft.tree, [&](NodeId node) { return argmax_token(target.row(node)); }, verdict);
}

}  // namespace specmoe
