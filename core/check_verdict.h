#pragma once

#include "core/acceptance.h"
#include "kernels/check.h"

namespace specmoe {

/// Throws Error unless the accepted nodes lead down from the root, each a child of the one before, and the extra token
/// is in the vocabulary: policies may be anyone's.
inline void check_verdict(const TokenTree& tree, const Verdict& verdict, int vocab) {
  NodeId node = TokenTree::kRoot;
  for (NodeId child : verdict.accepted) {
    SPECMOE_CHECK(child > 0 && child < tree.size() && tree.parent(child) == node,
                  "the policy's verdict is no path of the tree: node ", child, " does not follow node ", node);
    node = child;
  }
  SPECMOE_CHECK(verdict.next >= 0 && verdict.next < vocab, "the policy emitted token ", verdict.next,
                ", outside the vocabulary of ", vocab);
}

}  // namespace specmoe
