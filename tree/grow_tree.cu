#include "tree/grow_tree.h"

#include "core/token_tree.h"
#include "kernels/cuda/launch.h"
#include "tree/score_rule.h"

namespace specmoe::cuda {

using kernels::Rows;
using kernels::cuda::SharedArena;

namespace {

constexpr int kThreads = 256;

__device__ scored::ScoredNode scored_node(const DeviceDraft& draft, NodeId node) {
  return {draft.scores[node], draft.depths[node], node};
}

/// chosen[i] = whether node first + i is among the `count` best of [first, end). Ends with a barrier.
__device__ void mark_best(const DeviceDraft& draft, NodeId first, NodeId end, int count, std::int32_t* chosen) {
  for (NodeId n = first + static_cast<int>(threadIdx.x); n < end; n += kThreads) {
    int better = 0;
    const scored::ScoredNode own = scored_node(draft, n);
    for (NodeId other = first; other < end; ++other) better += scored_node(draft, other).before(own) ? 1 : 0;
    chosen[n - first] = better < count ? 1 : 0;
  }
  __syncthreads();
}

__device__ int chosen_before(const std::int32_t* chosen, int index) {
  int before = 0;
  for (int i = 0; i < index; ++i) before += chosen[i];
  return before;
}

/// Adds the proposed children of every frontier node, and returns how many nodes there are then. Ends with a barrier.
__device__ NodeId add_children(const DeviceDraft& draft, const DeviceLevel& level, NodeId first, int frontier,
                               std::int32_t* begin) {
  if (threadIdx.x == 0) {
    begin[0] = 0;
    for (int i = 0; i < frontier; ++i) begin[i + 1] = begin[i] + draft.proposed_counts[i];
  }
  __syncthreads();
  const int most = draft.most.children;
  for (int index = static_cast<int>(threadIdx.x); index < frontier * most; index += kThreads) {
    const int i = index / most;
    const int j = index % most;
    if (j >= begin[i + 1] - begin[i]) continue;
    const NodeId n = first + begin[i] + j;
    const NodeId parent = draft.frontier[i];
    const TokenId token = draft.proposed[index];
    draft.tokens[n] = token;
    draft.parents[n] = parent;
    draft.depths[n] = level.depth;
    draft.row_of[n] = draft.proposed_rows[index];
    draft.cache_rows[n] = -1;
    if (!level.scored) continue;
    double q = 1.0;
    if (level.rows.data != nullptr) {
      q = static_cast<double>(level.rows.row(level.first_row + i)[token]);
    } else {
      for (int before = 0; before <= j; ++before) q *= 0.5;
    }
    draft.scores[n] = scored::child_score(draft.scores[parent], q);
  }
  const NodeId end = first + begin[frontier];
  __syncthreads();
  return end;
}

/// One block.
__global__ void __launch_bounds__(kThreads) grow_kernel(DeviceDraft draft, DeviceLevel level) {
  SharedArena arena;
  std::int32_t* begin = arena.take<std::int32_t>(draft.most.frontier + 1);
  std::int32_t* chosen = arena.take<std::int32_t>(draft.most.frontier * draft.most.children);
  const NodeId first = *draft.nodes;
  const int frontier = *draft.frontier_size;
  const NodeId end = add_children(draft, level, first, frontier, begin);
  const bool goes_on = level.frontier > 0 && level.depth < *draft.max_depth;
  int next = goes_on ? end - first : 0;
  if (goes_on && level.best_only) {
    mark_best(draft, first, end, level.frontier, chosen);
    if (next > level.frontier) next = level.frontier;
  }
  for (int i = static_cast<int>(threadIdx.x); goes_on && i < end - first; i += kThreads) {
    if (!level.best_only) {
      draft.frontier[i] = first + i;
    } else if (chosen[i] != 0) {
      draft.frontier[chosen_before(chosen, i)] = first + i;
    }
  }
  if (threadIdx.x != 0) return;
  *draft.nodes = end;
  *draft.frontier_size = next;
}

/// A node on its way to another place.
struct MovedNode {
  TokenId token;
  NodeId parent;
  std::int32_t depth, row_of, cache_row;
};

/// One block. Nodes only move down: a round of threads reads its nodes before it writes them, to places of its own or
/// of earlier rounds.
__global__ void __launch_bounds__(kThreads) keep_kernel(DeviceDraft draft, int kept) {
  SharedArena arena;
  std::int32_t* chosen = arena.take<std::int32_t>(draft.most.nodes);
  std::int32_t* renamed = arena.take<std::int32_t>(draft.most.nodes);
  const int nodes = *draft.nodes;
  if (nodes - 1 <= kept) return;
  if (threadIdx.x == 0) chosen[0] = 1;
  mark_best(draft, 1, nodes, kept, chosen + 1);
  for (int n = static_cast<int>(threadIdx.x); n < nodes; n += kThreads) renamed[n] = chosen_before(chosen, n);
  __syncthreads();
  for (int round = 0; round < nodes; round += kThreads) {
    const int n = round + static_cast<int>(threadIdx.x);
    const bool moves = n < nodes && chosen[n] != 0;
    MovedNode node = {};
    if (moves) {
      const NodeId parent = draft.parents[n];
      node = {draft.tokens[n], parent == TokenTree::kNone ? TokenTree::kNone : renamed[parent], draft.depths[n],
              draft.row_of[n], draft.cache_rows[n]};
    }
    __syncthreads();
    if (moves) {
      draft.tokens[renamed[n]] = node.token;
      draft.parents[renamed[n]] = node.parent;
      draft.depths[renamed[n]] = node.depth;
      draft.row_of[renamed[n]] = node.row_of;
      draft.cache_rows[renamed[n]] = node.cache_row;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *draft.nodes = kept + 1;
}

}  // namespace

void grow_level(const DeviceDraft& draft, const DeviceLevel& level, kernels::cuda::Stream& stream) {
  const std::size_t bytes = kernels::cuda::arena_bytes<std::int32_t>(draft.most.frontier + 1) +
                            kernels::cuda::arena_bytes<std::int32_t>(draft.most.frontier * draft.most.children);
  kernels::cuda::launch(grow_kernel, 1, kThreads, bytes, stream, draft, level);
}

void keep_best_nodes(const DeviceDraft& draft, int kept, kernels::cuda::Stream& stream) {
  const std::size_t bytes = 2 * kernels::cuda::arena_bytes<std::int32_t>(draft.most.nodes);
  kernels::cuda::launch(keep_kernel, 1, kThreads, bytes, stream, draft, kept);
}

}  // namespace specmoe::cuda
