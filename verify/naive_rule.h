#pragma once

#include "core/greedy_walk.h"

namespace specmoe {

/// See naive.cpp. Here and in the other rules Draft, Rows, Uniforms and Verdict are specmoe's on the CPU, and what
/// stands for them in verify_tree.cu on a device.
template <class Draft, class Rows, class Uniforms, class Verdict>
SPECMOE_HD void naive_rule(Draft& draft, Rows& target, Uniforms& uniforms, Verdict& verdict) {
  walk_tokens(
      draft.tree,
      [&](NodeId node) {
        const auto row = target.row(node);
        check_row(row, "target row", node);
        return draw_from_row(row, Taken{}, uniforms.at({node, Purpose::kNext, 0}));
      },
      verdict);
}

}  // namespace specmoe
