#pragma once

#include "core/device_draft.h"
#include "kernels/view.h"

/// How a LevelPlan grows and prunes the tree of a DeviceDraft, on a device.
namespace specmoe::cuda {

inline constexpr int kMostGrownNodes = 4096;

/// One level of a plan.
///
/// depth     of its nodes
/// frontier  most of them that are asked about next; 0: none, for the last level
/// best_only whether those are the ones with the best scores; else there are never more
/// scored    whether nodes get scores
/// rows      what the frontier's nodes were given, node i row first_row + i; without data: tokens, of which the i-th
///           counts as 2^-i
struct DeviceLevel {
  int depth = 1;
  int frontier = 0;
  bool best_only = false;
  bool scored = false;
  kernels::Rows<const float> rows;
  int first_row = 0;
};

/// Adds what was proposed below the frontier, and chooses the next frontier.
void grow_level(const DeviceDraft& draft, const DeviceLevel& level, kernels::cuda::Stream& stream);

/// Leaves the root and the `kept` best other nodes, in their order.
void keep_best_nodes(const DeviceDraft& draft, int kept, kernels::cuda::Stream& stream);

}  // namespace specmoe::cuda
