#pragma once

#include "core/types.h"
#include "core/uniforms.h"
#include "kernels/cuda/runtime.h"

namespace specmoe::cuda {

/// A draft that grows in device memory, and what is proposed for its next level. Pointers are to device memory; what
/// they point to changes from kernel to kernel, they themselves stay.
///
/// A step asks a drafter about the frontier (draft/propose.h), then lets the tree grow by what it proposed
/// (tree/grow_tree.h), level by level. core/grow.h does the same on the CPU, with the same results.
struct DeviceDraft {
  struct Room {
    int nodes = 1;     // of the grown tree, root included
    int frontier = 1;  // nodes asked about at a time
    int children = 1;  // of one node
  } most;

  std::int32_t* nodes = nullptr;       // [1] grown so far
  TokenId* tokens = nullptr;           // [most.nodes]
  NodeId* parents = nullptr;           // [most.nodes]
  std::int32_t* depths = nullptr;      // [most.nodes]
  std::int32_t* row_of = nullptr;      // [most.nodes] as Draft::row_of
  double* scores = nullptr;            // [most.nodes] as NodeNote::score
  std::int32_t* cache_rows = nullptr;  // [most.nodes] staged row of the drafter's cache, -1: was never asked about

  std::int32_t* max_depth = nullptr;      // [1] no node deeper than this
  std::int32_t* frontier_size = nullptr;  // [1]
  NodeId* frontier = nullptr;             // [most.frontier]

  std::int32_t* proposed_counts = nullptr;  // [most.frontier]
  TokenId* proposed = nullptr;              // [most.frontier, most.children]
  std::int32_t* proposed_rows = nullptr;    // [most.frontier, most.children] row that each was drawn from, or -1

  UniformKey* uniforms = nullptr;  // [1] of this step
  unsigned* broken = nullptr;      // [1] 0, or 1 + a node whose drafted logits are NaN
};

/// The memory of one.
class DeviceDraftMemory {
 public:
  DeviceDraftMemory(DeviceDraft::Room most, int device);
  const DeviceDraft& draft() const { return draft_; }

 private:
  kernels::cuda::DeviceArray<std::int32_t> integers_;
  kernels::cuda::DeviceArray<double> scores_;
  kernels::cuda::DeviceArray<UniformKey> uniforms_;
  DeviceDraft draft_;
};

inline DeviceDraftMemory::DeviceDraftMemory(DeviceDraft::Room most, int device) {
  const auto nodes = static_cast<std::size_t>(most.nodes);
  const auto frontier = static_cast<std::size_t>(most.frontier);
  const auto proposed = frontier * static_cast<std::size_t>(most.children);
  integers_ = kernels::cuda::DeviceArray<std::int32_t>(4 + 5 * nodes + 2 * frontier + 2 * proposed, device);
  scores_ = kernels::cuda::DeviceArray<double>(nodes, device);
  uniforms_ = kernels::cuda::DeviceArray<UniformKey>(1, device);
  std::int32_t* at = integers_.data();
  const auto take = [&at](std::size_t count) {
    at += count;
    return at - count;
  };
  draft_.most = most;
  draft_.nodes = take(1);
  draft_.max_depth = take(1);
  draft_.frontier_size = take(1);
  draft_.broken = reinterpret_cast<unsigned*>(take(1));
  for (std::int32_t** part : {&draft_.tokens, &draft_.parents, &draft_.depths, &draft_.row_of, &draft_.cache_rows}) {
    *part = take(nodes);
  }
  draft_.frontier = take(frontier);
  draft_.proposed_counts = take(frontier);
  draft_.proposed = take(proposed);
  draft_.proposed_rows = take(proposed);
  draft_.scores = scores_.data();
  draft_.uniforms = uniforms_.data();
}

}  // namespace specmoe::cuda
