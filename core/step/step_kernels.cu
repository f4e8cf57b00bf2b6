#include "core/step/step_kernels.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace specmoe::cuda {

using kernels::cuda::ChoiceFlag;
using kernels::cuda::LoopFlag;

namespace {

constexpr int kThreads = 128;

__device__ int thread() { return static_cast<int>(threadIdx.x); }

__device__ void commit(const StagedRows& rows) {
  rows.sequence->committed += *rows.kept;
  *rows.kept = 0;
  *rows.staged = 0;
}

__global__ void __launch_bounds__(kThreads) begin_kernel(StepMemory memory) {
  if (threadIdx.x != 0) return;
  const DeviceDraft& draft = memory.draft;
  const StepState& state = *memory.state;
  commit(memory.target_rows);
  if (memory.draft_rows.most > 0) commit(memory.draft_rows);
  *draft.nodes = 1;
  draft.tokens[0] = memory.text[state.length - 1];
  draft.parents[0] = TokenTree::kNone;
  draft.depths[0] = 0;
  draft.row_of[0] = -1;
  draft.scores[0] = 0.0;
  draft.cache_rows[0] = -1;
  const int depth = state.remaining - 1 < memory.most_depth ? state.remaining - 1 : memory.most_depth;
  *draft.max_depth = depth;
  *draft.frontier_size = depth > 0 ? 1 : 0;
  draft.frontier[0] = TokenTree::kRoot;
  *draft.uniforms = state.uniforms;
  *draft.broken = 0;
}

/// Stages `count` rows behind those that are staged: row i with token_of(i), hanging on staged row parent_of(i).
template <class TokenOf, class ParentOf>
__device__ void stage_rows(const StagedRows& to, int count, int tiles, const TokenOf& token_of,
                           const ParentOf& parent_of) {
  const int first = *to.staged;
  for (int i = thread(); i < count; i += kThreads) to.parents[first + i] = parent_of(i);
  __syncthreads();
  const int committed = to.sequence->committed;
  for (int i = thread(); i < count; i += kThreads) {
    const int own = first + i;
    std::uint64_t* mask = to.ancestors + static_cast<std::int64_t>(own) * to.words;
    for (int word = 0; word < to.words; ++word) mask[word] = 0;
    int depth = 0;
    for (int at = own; at >= 0; at = to.parents[at]) {
      mask[at / 64] |= std::uint64_t{1} << (at % 64);
      ++depth;
    }
    to.tokens[i] = token_of(i);
    to.rows[i] = {0, committed + own, committed + depth - 1, own};
  }
  for (int tile = thread(); tile < tiles; tile += kThreads) {
    const int begin = tile * to.tile_rows;
    const int left = count - begin;
    to.tiles[tile] = {begin, left <= 0 ? 0 : left < to.tile_rows ? left : to.tile_rows};
  }
  if (threadIdx.x != 0) return;
  to.counts[0] = count;
  *to.staged = first + count;
}

__global__ void __launch_bounds__(kThreads) root_kernel(StepMemory memory, int tiles) {
  const StagedRows& to = memory.draft_rows;
  const int committed = to.sequence->committed;
  const int missing = *memory.draft.frontier_size > 0 ? memory.state->length - committed : 0;
  stage_rows(to, missing, tiles, [&](int i) { return memory.text[committed + i]; }, [](int i) { return i - 1; });
  if (threadIdx.x != 0) return;
  to.wanted[0] = missing - 1;
  to.counts[1] = missing > 0 ? 1 : 0;
  memory.draft.cache_rows[0] = missing - 1;
}

__global__ void __launch_bounds__(kThreads) frontier_kernel(StepMemory memory, int tiles) {
  const StagedRows& to = memory.draft_rows;
  const DeviceDraft& draft = memory.draft;
  const int count = *draft.frontier_size;
  const int first = *to.staged;
  stage_rows(
      to, count, tiles, [&](int i) { return draft.tokens[draft.frontier[i]]; },
      [&](int i) { return draft.cache_rows[draft.parents[draft.frontier[i]]]; });
  for (int i = thread(); i < count; i += kThreads) {
    draft.cache_rows[draft.frontier[i]] = first + i;
    to.wanted[i] = i;
  }
  if (threadIdx.x == 0) to.counts[1] = count;
}

__global__ void __launch_bounds__(kThreads) tree_kernel(StepMemory memory, int tiles, ChoiceFlag size) {
  const StagedRows& to = memory.target_rows;
  const DeviceDraft& draft = memory.draft;
  const int nodes = *draft.nodes;
  stage_rows(to, nodes, tiles, [&](int i) { return draft.tokens[i]; }, [&](int i) { return draft.parents[i]; });
  for (int i = thread(); i < nodes; i += kThreads) to.wanted[i] = i;
  if (threadIdx.x != 0) return;
  to.counts[1] = nodes;
  memory.judged->nodes = nodes;
  memory.judged->uniforms = memory.state->uniforms;
  kernels::cuda::choose_part(size, static_cast<unsigned>(pass_size(nodes)));
}

/// The drafter's rows that hold the kept text: up to the root's, then those of accepted nodes that it was asked about.
__device__ void name_drafted_rows(const StepMemory& memory, int accepted) {
  const StagedRows& rows = memory.draft_rows;
  const DeviceDraft& draft = memory.draft;
  int count = 0;
  for (int row = 0; row <= draft.cache_rows[0]; ++row) rows.path[count++] = row;
  for (int i = 1; i <= accepted && count > 0; ++i) {
    const std::int32_t row = draft.cache_rows[memory.target_rows.path[i]];
    if (row < 0) break;
    rows.path[count++] = row;
  }
  *rows.kept = count;
  for (int i = count; i < rows.most_path; ++i) rows.path[i] = -1;
}

__device__ bool is_stop(const StepMemory& memory, TokenId token) {
  for (int i = 0; i < memory.stop_count; ++i) {
    if (memory.stops[i] == token) return true;
  }
  return false;
}

/// The text after the step. Returns whether it has ended.
__device__ bool emit(const StepMemory& memory, const DeviceVerdict& verdict) {
  StepState& state = *memory.state;
  bool stopped = false;
  for (int i = 0; i <= verdict.accepted; ++i) {
    const TokenId token = i < verdict.accepted ? memory.draft.tokens[memory.target_rows.path[i + 1]] : verdict.next;
    memory.text[state.length + i] = token;
    stopped = stopped || is_stop(memory, token);
  }
  state.length += verdict.accepted + 1;
  state.remaining -= verdict.accepted + 1;
  return stopped || state.remaining <= 0;
}

__global__ void __launch_bounds__(kThreads) settle_kernel(StepMemory memory, int integers, LoopFlag loop) {
  const DeviceDraft& draft = memory.draft;
  const DeviceVerdict verdict = *memory.verdict;
  const int nodes = *draft.nodes;
  const int index = memory.state->outcome;
  const Outcome to = Outcome::at(memory.outcomes, memory.room, integers, index);
  for (int n = thread(); n < nodes; n += kThreads) {
    to.tokens[n] = draft.tokens[n];
    to.parents[n] = draft.parents[n];
  }
  for (int i = thread(); i < memory.room.path; i += kThreads) to.path[i] = memory.target_rows.path[i];
  for (int i = thread(); i < memory.room.layers; i += kThreads) to.active[i] = memory.active_experts[i];
  __syncthreads();
  if (threadIdx.x != 0) return;
  const bool failed = verdict.problem != VerifyProblem::kNone || *draft.broken != 0;
  *memory.target_rows.kept = verdict.accepted + 1;
  if (memory.draft_rows.most > 0) name_drafted_rows(memory, verdict.accepted);
  const bool ended = emit(memory, verdict) || failed;
  const bool goes_on = !ended && index + 1 < memory.room.count;
  *to.head = {nodes, verdict.accepted, verdict.next, goes_on ? 0 : 1, verdict.problem, verdict.node, *draft.broken};
  ++memory.state->uniforms.step;
  memory.state->outcome = goes_on ? index + 1 : 0;
  kernels::cuda::continue_loop(loop, goes_on);
}

}  // namespace

void begin_step(const StepMemory& memory, kernels::cuda::Stream& stream) {
  kernels::cuda::launch(begin_kernel, 1, kThreads, 0, stream, memory);
}
void stage_frontier(const StepMemory& memory, bool root, int tiles, kernels::cuda::Stream& stream) {
  kernels::cuda::launch(root ? root_kernel : frontier_kernel, 1, kThreads, 0, stream, memory, tiles);
}
void stage_tree(const StepMemory& memory, int tiles, ChoiceFlag size, kernels::cuda::Stream& stream) {
  kernels::cuda::launch(tree_kernel, 1, kThreads, 0, stream, memory, tiles, size);
}
void settle_step(const StepMemory& memory, LoopFlag loop, kernels::cuda::Stream& stream) {
  kernels::cuda::launch(settle_kernel, 1, kThreads, 0, stream, memory, memory.room.integers(), loop);
}

}  // namespace specmoe::cuda
