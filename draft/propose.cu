#include "draft/propose.h"

#include "core/block_team.h"
#include "core/draw.h"
#include "draft/ngram_rule.h"
#include "kernels/cuda/launch.h"

namespace specmoe::cuda {

using kernels::Rows;
using kernels::cuda::SharedArena;

/// As each_likeliest of core/draw.h, by a block.
template <class Siblings, class Add>
__device__ void each_likeliest(const TeamRow& row, int count, const Siblings& siblings, const Add& add) {
  for (int i = 0; i < count; ++i) {
    const TokenId token = BlockTeam::likeliest(row.dense(), siblings());
    if (token < 0) return;
    add(token);
  }
}

/// What stands for a Draft of which one node's children alone are drawn. They lie in shared memory.
class ChildGroup {
 public:
  static constexpr std::size_t shared_bytes(int children) {
    return 3 * kernels::cuda::arena_bytes<std::int32_t>(children);
  }

  struct Tree {
    TokenId* children;
    NodeId* next;
    int count = 0;
    __device__ NodeId first_child(NodeId) const { return count == 0 ? TokenTree::kNone : 0; }
    __device__ int child_count(NodeId) const { return count; }
    __device__ std::span<const TokenId> tokens() const { return {children, static_cast<std::size_t>(count)}; }
    __device__ std::span<const NodeId> next_siblings() const { return {next, static_cast<std::size_t>(count)}; }
  } tree;
  struct DenseRows {
    Rows<const float> rows;
    __device__ TeamRow row(std::int32_t i) const {
      return TeamRow(ProbRow<float>({rows.row(i), static_cast<std::size_t>(rows.cols)}));
    }
  } rows;
  std::span<std::int32_t> row_of;

  __device__ ChildGroup(Rows<const float> from, int most, SharedArena& arena)
      : tree{arena.take<TokenId>(most), arena.take<NodeId>(most)},
        rows{from},
        row_of(arena.take<std::int32_t>(most), static_cast<std::size_t>(most)) {}

  /// Every draw has met the other threads since it looked at the siblings.
  __device__ void add(NodeId, TokenId token, std::int32_t drawn_from) {
    if (threadIdx.x == 0) {
      tree.children[tree.count] = token;
      tree.next[tree.count] = TokenTree::kNone;
      row_of[static_cast<std::size_t>(tree.count)] = drawn_from;
      if (tree.count > 0) tree.next[tree.count - 1] = tree.count;
    }
    ++tree.count;
    __syncthreads();
  }
};

namespace {

__device__ void complain(const DeviceDraft& draft, NodeId node) {
  if (threadIdx.x == 0) atomicMax(draft.broken, static_cast<unsigned>(node) + 1u);
}

/// A block per frontier node.
__global__ void __launch_bounds__(1024)
    law_kernel(DeviceDraft draft, DraftLaw law, Rows<const float> rows, int first_row, int children) {
  const int i = static_cast<int>(blockIdx.x);
  if (i >= *draft.frontier_size) return;
  SharedArena arena;
  arena.take<std::byte>(BlockTeam::kSharedBytes);
  ChildGroup group(rows, children, arena);
  const std::int32_t row = first_row + i;
  const NodeId parent = draft.frontier[i];
  const float sample = rows.row(row)[0];
  if (sample != sample) {  // one NaN among logits makes all probabilities NaN
    complain(draft, parent);
  } else {
    BlockUniforms uniforms = {*draft.uniforms};
    ChildDrawing<ChildGroup, BlockUniforms> drawing(group, parent, uniforms);
    draw_by_law(law, children, std::span<const std::int32_t>(&row, 1), drawing);
  }
  const int first = i * draft.most.children;
  for (int j = static_cast<int>(threadIdx.x); j < group.tree.count; j += static_cast<int>(blockDim.x)) {
    draft.proposed[first + j] = group.tree.children[j];
    draft.proposed_rows[first + j] = group.row_of[static_cast<std::size_t>(j)];
  }
  if (threadIdx.x == 0) draft.proposed_counts[i] = group.tree.count;
}

constexpr int kArgmaxThreads = 64;

__global__ void __launch_bounds__(kArgmaxThreads) argmax_kernel(DeviceDraft draft, const TokenId* argmax) {
  for (int i = static_cast<int>(threadIdx.x); i < *draft.frontier_size; i += kArgmaxThreads) {
    if (argmax[i] < 0) atomicMax(draft.broken, static_cast<unsigned>(draft.frontier[i]) + 1u);
    draft.proposed[i * draft.most.children] = argmax[i];
    draft.proposed_rows[i * draft.most.children] = -1;
    draft.proposed_counts[i] = argmax[i] < 0 ? 0 : 1;
  }
}

/// Text and Suffix of ngram_rule.
struct TokenRun {
  const TokenId* tokens;
  int length;
  __device__ int size() const { return length; }
  __device__ TokenId operator[](int i) const { return tokens[i]; }
};

/// Found of ngram_rule, in shared memory.
struct FoundTokens {
  TokenId* tokens;
  int count = 0;
  __device__ int size() const { return count; }
  __device__ bool contains(TokenId token) const {
    for (int i = 0; i < count; ++i) {
      if (tokens[i] == token) return true;
    }
    return false;
  }
  __device__ void add(TokenId token) {
    if (threadIdx.x == 0) tokens[count] = token;
    ++count;
    __syncthreads();
  }
};

/// The last tokens of the text and a node's path, at most `most`.
__device__ TokenRun suffix_of(const DeviceDraft& draft, NodeId node, TokenRun text, int most, TokenId* shared) {
  const int path = draft.depths[node];
  const int size = path + text.length < most ? path + text.length : most;
  if (threadIdx.x == 0) {
    int at = size;
    for (; node != TokenTree::kRoot && at > 0; node = draft.parents[node]) shared[--at] = draft.tokens[node];
    for (int i = text.length; at > 0; --i) shared[--at] = text.tokens[i - 1];
  }
  __syncthreads();
  return {shared, size};
}

/// A block per frontier node.
__global__ void __launch_bounds__(1024)
    ngram_kernel(DeviceDraft draft, NgramRule rule, DeviceText committed, int children) {
  const int i = static_cast<int>(blockIdx.x);
  if (i >= *draft.frontier_size) return;
  SharedArena arena;
  arena.take<std::byte>(BlockTeam::kSharedBytes);
  TokenId* shared = arena.take<TokenId>(rule.max_n);
  FoundTokens found = {arena.take<TokenId>(children)};
  // What is found past the last child is of no use.
  if (children < rule.choices) rule.choices = children;
  const TokenRun text = {committed.tokens, *committed.length};
  const TokenRun suffix = suffix_of(draft, draft.frontier[i], text, rule.max_n, shared);
  ngram_rule<BlockTeam>(text, suffix, rule, found);
  const int first = i * draft.most.children;
  for (int j = static_cast<int>(threadIdx.x); j < found.count; j += static_cast<int>(blockDim.x)) {
    draft.proposed[first + j] = found.tokens[j];
    draft.proposed_rows[first + j] = -1;
  }
  if (threadIdx.x == 0) draft.proposed_counts[i] = found.count;
}

}  // namespace

void propose_by_law(const DeviceDraft& draft, DraftLaw law, Rows<const float> rows, int first_row, int children,
                    kernels::cuda::Stream& stream, int threads) {
  SPECMOE_CHECK(law != DraftLaw::kMultiDrafter && children <= kMostProposed,
                "drafting on cuda: expected one drafter and at most ", kMostProposed, " children, got ", law_name(law),
                " and ", children);
  kernels::cuda::launch(law_kernel, static_cast<unsigned>(draft.most.frontier), static_cast<unsigned>(threads),
                        BlockTeam::kSharedBytes + ChildGroup::shared_bytes(children), stream, draft, law, rows,
                        first_row, children);
}

void propose_argmax(const DeviceDraft& draft, const TokenId* argmax, kernels::cuda::Stream& stream) {
  kernels::cuda::launch(argmax_kernel, 1, kArgmaxThreads, 0, stream, draft, argmax);
}

void propose_ngram(const DeviceDraft& draft, const NgramRule& rule, DeviceText text, int children,
                   kernels::cuda::Stream& stream, int threads) {
  SPECMOE_CHECK(rule.max_n <= kMostNgram && children <= kMostProposed, "ngram on cuda: expected max_n up to ",
                kMostNgram, " and at most ", kMostProposed, " children, got ", rule.max_n, " and ", children);
  const std::size_t bytes = BlockTeam::kSharedBytes + kernels::cuda::arena_bytes<TokenId>(rule.max_n) +
                            kernels::cuda::arena_bytes<TokenId>(children);
  kernels::cuda::launch(ngram_kernel, static_cast<unsigned>(draft.most.frontier), static_cast<unsigned>(threads), bytes,
                        stream, draft, rule, text, children);
}

}  // namespace specmoe::cuda
