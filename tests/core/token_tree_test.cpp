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
  const NodeId d = tree.add(b, 4);
  for (const auto& wrong : {std::vector<NodeId>{0, a, c}, {b, c}, {0, c, b}, {0, b, 9}, {}}) {
    EXPECT_THROW(tree.restrict_to(wrong), Error);
    EXPECT_EQ(tree.size(), 5) << "left as it was";
  }
  tree.restrict_to(std::vector<NodeId>{0, b, c, d});
  ASSERT_EQ(tree.size(), 4);
  EXPECT_EQ(tree.token(1), 2);
  EXPECT_EQ(tree.parent(2), 1);
  EXPECT_EQ(tree.depth(3), 2);
  EXPECT_EQ(tree.first_child(0), 1);
  EXPECT_TRUE(tree.next_sibling(1) == TokenTree::kNone && tree.next_sibling(2) == 3 && tree.is_leaf(3));
  EXPECT_EQ(tree.add(1, 7), 4);
  EXPECT_EQ(tree.next_sibling(3), 4);
}

TEST(TokenTree, RefusesAParentThatIsNotThere) {
  TokenTree tree(0);
  EXPECT_THROW(tree.add(1, 5), Error);
  EXPECT_THROW(tree.add(-1, 5), Error);
}

}  // namespace
}  // namespace specmoe
