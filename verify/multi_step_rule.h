#pragma once

#include "core/greedy_walk.h"
#include "core/residual.h"
#include "verify/child_rows.h"

namespace specmoe {

/// See multi_step.cpp.
template <class Draft, class Rows, class Uniforms, class Verdict>
SPECMOE_HD void multi_step_rule(Draft& draft, Rows& target, Uniforms& uniforms, Verdict& verdict,
                                bool without_replacement) {
  NodeId node = TokenTree::kRoot;
  NodeId accepted = TokenTree::kNone;
  do {
    const auto row = target.row(node);
    check_row(row, "target row", node);
    check_child_rows(draft, node);
    Residual residual(draft, node, row, without_replacement);
    accepted = draft.tree.first_child(node);
    for (; accepted != TokenTree::kNone; accepted = draft.tree.next_sibling(accepted)) {
      const auto [p, q] = residual.ratio(accepted);
      if (uniforms.at({accepted, Purpose::kAccept, 0}).less(p, q)) break;
      residual.reject(accepted);
    }
    if (accepted == TokenTree::kNone) {
      verdict.next = residual.draw(uniforms.at({node, Purpose::kNext, 0}));
    } else {
      node = accepted;
    }
  } while (accepted != TokenTree::kNone);
  accept_path(draft.tree, node, verdict);
}

}  // namespace specmoe
