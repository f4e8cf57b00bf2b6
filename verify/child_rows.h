#pragma once

#include "core/decide.h"

namespace specmoe {

/// Checks the rows that a node's children were drawn from, each once.
template <class Draft>
SPECMOE_HD void check_child_rows(Draft& draft, NodeId node) {
  std::int32_t checked = -1;
  for (NodeId child = draft.tree.first_child(node); child != TokenTree::kNone; child = draft.tree.next_sibling(child)) {
    if (draft.row_of[child] < 0 || draft.row_of[child] == checked) continue;
    checked = draft.row_of[child];
    check_row(draft.row(child), "draft row", child);
  }
}

}  // namespace specmoe
