#pragma once

#include "core/portable_log.h"
#include "core/types.h"
#include "kernels/host_device.h"

/// How nodes are scored and ordered, on the CPU and on devices: with the same bits.
namespace specmoe::scored {

/// The score of a child that has probability q after its parent.
SPECMOE_HD inline double child_score(double parent_score, double q) {
  return parent_score + portable_log(q > 1e-300 ? q : 1e-300);
}

struct ScoredNode {
  double score;
  int depth;
  NodeId node;
  /// By score, then depth, then index, so that no node comes before its parent.
  SPECMOE_HD bool before(const ScoredNode& other) const {
    if (score != other.score) return score > other.score;
    if (depth != other.depth) return depth < other.depth;
    return node < other.node;
  }
};

}  // namespace specmoe::scored
