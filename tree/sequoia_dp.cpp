#include "tree/sequoia_dp.h"

#include <limits>

namespace specmoe {

SequoiaTable::SequoiaTable(std::span<const double> rates, int nodes, int depth)
    : rates_(rates.begin(), rates.end()), nodes_(nodes), depth_(depth), ranks_(static_cast<int>(rates.size())) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  best_.assign(static_cast<std::size_t>(nodes_ + 1) * (depth_ + 1) * (ranks_ + 1), kNone);
  for (int m = 1; m <= nodes_; ++m) {
    for (int l = 0; l <= depth_; ++l) {
      if (m == 1) best(1, l, 0) = 1.0;
      for (int b = 1; l > 0 && b <= ranks_; ++b) {
        double most = kNone;
        for (int y = 1; y < m; ++y) {
          most = std::max(most, best(y, l, b - 1) + rates_[b - 1] * expected(m - y, l - 1));
        }
        best(m, l, b) = most;
      }
    }
  }
}

double SequoiaTable::expected(int nodes, int depth) const {
  double most = best(nodes, depth, 0);
  for (int b = 1; b <= ranks_; ++b) most = std::max(most, best(nodes, depth, b));
  return most;
}

StaticShape SequoiaTable::shape(int nodes, int depth) const {
  StaticShape shape;
  build(shape, 0, nodes, depth, -1);
  return shape;
}

/// Builds below `at` a subtree of `nodes` nodes whose root has `ranks` children, -1: as many as is best.
void SequoiaTable::build(StaticShape& shape, int at, int nodes, int depth, int ranks) const {
  if (ranks < 0) {
    ranks = 0;
    for (int b = 1; b <= ranks_; ++b) {
      if (best(nodes, depth, b) > best(nodes, depth, ranks)) ranks = b;
    }
  }
  if (ranks == 0) return;
  for (int y = 1; y < nodes; ++y) {
    const double value = best(y, depth, ranks - 1) + rates_[ranks - 1] * expected(nodes - y, depth - 1);
    if (value != best(nodes, depth, ranks)) continue;
    build(shape, at, y, depth, ranks - 1);
    build(shape, shape.add(at), nodes - y, depth - 1, -1);
    return;
  }
}

std::pair<int, int> SequoiaTable::fastest(double draft_time, const VerifyTimes& verify_times) const {
  std::pair<int, int> found = {1, 0};
  double least = std::numeric_limits<double>::infinity();
  for (int m = 2; m <= nodes_; ++m) {
    for (int l = 1; l <= depth_; ++l) {
      const double per_token = (l * draft_time + verify_times.at(m)) / expected(m, l);
      if (per_token > 0.0 && per_token < least) {
        least = per_token;
        found = {m, l};
      }
    }
  }
  return found;
}

}  // namespace specmoe
