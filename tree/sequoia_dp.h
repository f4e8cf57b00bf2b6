#pragma once

#include <span>
#include <utility>
#include <vector>

#include "tree/static_shape.h"
#include "tree/verify_times.h"

namespace specmoe {

/// The tree that emits most tokens in expectation when the child of rank b is the accepted one with probability
/// rates[b - 1], at every node alike.
///
/// nodes, depth  most nodes, root included, and most edges from the root
/// O(nodes^2 * depth * ranks) time
/// source        the dynamic program of Chen et al. 2024 (Sequoia), arXiv:2402.12374
class SequoiaTable {
 public:
  SequoiaTable(std::span<const double> rates, int nodes, int depth);

  /// Expected emitted tokens of the best tree of exactly `nodes` nodes no deeper than `depth`, extra token included.
  double expected(int nodes, int depth) const;
  StaticShape shape(int nodes, int depth) const;

  /// Most expected tokens for the time: (nodes, depth) that minimise (depth * draft_time + verify_time(nodes)) /
  /// expected.
  std::pair<int, int> fastest(double draft_time, const VerifyTimes& verify_times) const;

 private:
  double& best(int nodes, int depth, int ranks) { return best_[(nodes * (depth_ + 1) + depth) * (ranks_ + 1) + ranks]; }
  double best(int nodes, int depth, int ranks) const {
    return best_[(nodes * (depth_ + 1) + depth) * (ranks_ + 1) + ranks];
  }
  void build(StaticShape& shape, int at, int nodes, int depth, int ranks) const;

  std::vector<double> rates_;
  int nodes_;
  int depth_;
  int ranks_;
  /// best_[m][l][b]: of subtrees with m nodes, at most l edges deep, whose root has at most its b first ranks.
  std::vector<double> best_;
};

}  // namespace specmoe
