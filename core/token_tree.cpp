#include "core/token_tree.h"

#include <algorithm>

#include "kernels/check.h"

namespace specmoe {

TokenTree::TokenTree(TokenId root_token) { reset(root_token); }

void TokenTree::reset(TokenId root_token) {
  tokens_.assign(1, root_token);
  parents_.assign(1, kNone);
  depths_.assign(1, 0);
  first_child_.assign(1, kNone);
  last_child_.assign(1, kNone);
  next_sibling_.assign(1, kNone);
}

NodeId TokenTree::add(NodeId parent, TokenId token) {
  SPECMOE_CHECK(parent >= 0 && parent < size(), "token tree: parent ", parent, " of a new node is not among its ",
                size(), " nodes");
  const NodeId node = size();
  tokens_.push_back(token);
  parents_.push_back(parent);
  depths_.push_back(depths_[parent] + 1);
  first_child_.push_back(kNone);
  last_child_.push_back(kNone);
  next_sibling_.push_back(kNone);
  link(node);
  return node;
}

/// Makes a node the last child of its parent.
void TokenTree::link(NodeId node) {
  const NodeId parent = parents_[node];
  if (first_child_[parent] == kNone) {
    first_child_[parent] = node;
  } else {
    next_sibling_[last_child_[parent]] = node;
  }
  last_child_[parent] = node;
}

void TokenTree::restrict_to(std::span<const NodeId> kept) {
  SPECMOE_CHECK(!kept.empty() && kept[0] == kRoot, "token tree: a subset must begin with the root");
  for (std::size_t i = 1; i < kept.size(); ++i) {
    const NodeId node = kept[i];
    SPECMOE_CHECK(node > kept[i - 1] && node < size(), "token tree: subset nodes must ascend and exist, got ", node);
    SPECMOE_CHECK(std::ranges::binary_search(kept.first(i), parents_[node]), "token tree: subset keeps node ", node,
                  " without its parent ", parents_[node]);
  }
  // In place: i is never above kept[i].
  for (std::size_t i = 1; i < kept.size(); ++i) {
    const NodeId node = kept[i];
    tokens_[i] = tokens_[node];
    depths_[i] = depths_[node];
    parents_[i] = static_cast<NodeId>(std::ranges::lower_bound(kept, parents_[node]) - kept.begin());
  }
  tokens_.resize(kept.size());
  depths_.resize(kept.size());
  parents_.resize(kept.size());
  for (auto* links : {&first_child_, &last_child_, &next_sibling_}) links->assign(kept.size(), kNone);
  for (NodeId node = 1; node < size(); ++node) link(node);
}

int TokenTree::max_depth() const { return *std::max_element(depths_.begin(), depths_.end()); }

int TokenTree::child_count(NodeId n) const {
  int count = 0;
  for (NodeId child = first_child_[n]; child != kNone; child = next_sibling_[child]) ++count;
  return count;
}

}  // namespace specmoe
