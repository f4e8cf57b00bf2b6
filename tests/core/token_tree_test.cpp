#include "core/token_tree.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/check.h"

namespace specmoe {
namespace {

TEST(TokenTree, LinksChildrenInTheOrderTheyWereAdded) {
  TokenTree tree(7);
  const NodeId a = tree.add(TokenTree::kRoot, 1);
  const NodeId b = tree.add(TokenTree::kRoot, 1);  // equal siblings are two draws
  const NodeId c = tree.add(a, 2);
  EXPECT_EQ(tree.first_child(TokenTree::kRoot), a);
  EXPECT_EQ(tree.next_sibling(a), b);
  EXPECT_EQ(tree.next_sibling(b), TokenTree::kNone);
  EXPECT_EQ(tree.depth(c), 2);
  EXPECT_EQ(tree.child_count(TokenTree::kRoot), 2);
  EXPECT_EQ(tree.max_depth(), 2);
  EXPECT_TRUE(tree.is_leaf(b));
}

TEST(TokenTree, SubsetRenumbersAndKeepsOrder) {
  TokenTree tree(0);
  const NodeId a = tree.add(0, 1);
  const NodeId b = tree.add(0, 2);
  const NodeId c = tree.add(b, 3);
  const std::vector<NodeId> kept = {0, b, c};
  const TokenTree subset = tree.subset(kept);
  EXPECT_EQ(subset.size(), 3);
  EXPECT_EQ(subset.token(1), 2);
  EXPECT_EQ(subset.parent(2), 1);
  const std::vector<NodeId> orphan = {0, a, c};
  EXPECT_THROW(tree.subset(orphan), Error);
}

TEST(TokenTree, RefusesAParentThatIsNotThere) {
  TokenTree tree(0);
  EXPECT_THROW(tree.add(1, 5), Error);
  EXPECT_THROW(tree.add(-1, 5), Error);
}

}  // namespace
}  // namespace specmoe
