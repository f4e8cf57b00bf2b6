#include "verify/verify_tree.h"

#include "core/block_team.h"
#include "kernels/cuda/launch.h"
#include "verify/block_rule.h"
#include "verify/chain_walk.h"
#include "verify/greedy_ot_rule.h"
#include "verify/multi_step_rule.h"
#include "verify/naive_rule.h"

namespace specmoe::cuda {

using kernels::Rows;
using kernels::cuda::SharedArena;

/// The first problem of a block's case. Only its first thread keeps it, so nobody has to wait.
struct Complaint {
  VerifyProblem problem;
  NodeId node;

  __device__ void note(VerifyProblem what, NodeId about) {
    if (threadIdx.x != 0 || problem != VerifyProblem::kNone) return;
    problem = what;
    node = about;
  }
};

/// A row that can be complained about.
class BlockRow : public TeamRow {
 public:
  SPECMOE_HD BlockRow() {}
  __device__ BlockRow(const ProbRow<float>& row, Complaint* complaint) : TeamRow(row), complaint_(complaint) {}
  __device__ void complain(VerifyProblem what, NodeId node) const { complaint_->note(what, node); }

 private:
  Complaint* complaint_ = nullptr;
};

// What a device does where the CPU throws: the decision goes on, and is not used.
__device__ inline void refuse_row(const BlockRow& row, const char* what, NodeId node) {
  row.complain(what[0] == 't' ? VerifyProblem::kTargetRow : VerifyProblem::kDraftRow, node);
}
__device__ inline void refuse_token(const BlockRow& row, NodeId node, TokenId) {
  row.complain(VerifyProblem::kDraftToken, node);
}
__device__ inline void refuse_steps(const BlockRow& row) { row.complain(VerifyProblem::kTooManyRows, 0); }

static_assert(kMostVerifyNodes <= BlockTeam::kMostNodes);

/// A TokenTree in shared memory.
class BlockTree {
 public:
  static constexpr std::size_t kSharedBytes = 5 * kernels::cuda::arena_bytes<std::int32_t>(kMostVerifyNodes);

  /// Ends with a barrier.
  __device__ BlockTree(const VerifyCase& of, SharedArena& arena) : size_(of.nodes) {
    for (std::int32_t** piece : {&tokens_, &parents_, &depths_, &first_child_, &next_sibling_}) {
      *piece = arena.take<std::int32_t>(kMostVerifyNodes);
    }
    for (int n = static_cast<int>(threadIdx.x); n < size_; n += static_cast<int>(blockDim.x)) {
      tokens_[n] = of.tokens[n];
      parents_[n] = of.parents[n];
    }
    __syncthreads();
    for (int n = static_cast<int>(threadIdx.x); n < size_; n += static_cast<int>(blockDim.x)) link(n);
    __syncthreads();
  }

  __device__ int size() const { return size_; }
  __device__ TokenId token(NodeId n) const { return tokens_[n]; }
  __device__ NodeId parent(NodeId n) const { return parents_[n]; }
  __device__ int depth(NodeId n) const { return depths_[n]; }
  __device__ NodeId first_child(NodeId n) const { return first_child_[n]; }
  __device__ NodeId next_sibling(NodeId n) const { return next_sibling_[n]; }
  __device__ std::span<const TokenId> tokens() const { return {tokens_, static_cast<std::size_t>(size_)}; }
  __device__ std::span<const NodeId> next_siblings() const { return {next_sibling_, static_cast<std::size_t>(size_)}; }

 private:
  __device__ void link(NodeId n) const {
    int depth = 0;
    for (NodeId at = parents_[n]; at != TokenTree::kNone; at = parents_[at]) ++depth;
    NodeId child = TokenTree::kNone, sibling = TokenTree::kNone;
    for (NodeId m = size_ - 1; m > n; --m) {
      if (parents_[m] == n) child = m;
      if (parents_[m] == parents_[n]) sibling = m;
    }
    depths_[n] = depth;
    first_child_[n] = child;
    next_sibling_[n] = sibling;
  }

  int size_;
  std::int32_t *tokens_, *parents_, *depths_, *first_child_, *next_sibling_;
};

/// What stands for Draft, ProbRows, UniformSource and Verdict.
struct BlockDraft {
  using Row = BlockRow;

  BlockTree tree;
  std::span<const std::int32_t> row_of;
  Rows<const float> rows;
  const TokenId* points;
  int vocab;
  Complaint* complaint;

  __device__ BlockRow row(NodeId n) const {
    const std::int32_t index = row_of[n];
    if (index < 0) return {ProbRow<float>::point(tree.token(n), vocab), complaint};
    if (points != nullptr && points[index] >= 0) return {ProbRow<float>::point(points[index], vocab), complaint};
    return {ProbRow<float>({rows.row(index), static_cast<std::size_t>(vocab)}), complaint};
  }
};

struct BlockRows {
  Rows<const float> rows;
  const TokenId* argmax;
  int vocab;
  Complaint* complaint;

  __device__ BlockRow row(NodeId n) const {
    if (rows.data != nullptr) return {ProbRow<float>({rows.row(n), static_cast<std::size_t>(vocab)}), complaint};
    if (argmax[n] < 0) complaint->note(VerifyProblem::kLogits, n);
    return {ProbRow<float>::point(argmax[n] < 0 ? 0 : argmax[n], vocab), complaint};
  }
};

struct BlockVerdict {
  TokenId next;
  NodeId last;
};
__device__ inline void accept_path(const BlockTree&, NodeId node, BlockVerdict& verdict) { verdict.last = node; }

namespace {

template <DeviceRule kRule>
__device__ void judge(BlockDraft& draft, BlockRows& target, BlockUniforms& uniforms, BlockVerdict& verdict,
                      bool without_replacement) {
  if constexpr (kRule == DeviceRule::kGreedy) greedy_walk(draft, target, verdict);
  if constexpr (kRule == DeviceRule::kNaive) naive_rule(draft, target, uniforms, verdict);
  if constexpr (kRule == DeviceRule::kToken) ratio_walk(draft, target, uniforms, verdict, 1.0);
  if constexpr (kRule == DeviceRule::kBlock) block_rule(draft, target, uniforms, verdict);
  if constexpr (kRule == DeviceRule::kMultiStep) {
    multi_step_rule(draft, target, uniforms, verdict, without_replacement);
  }
  if constexpr (kRule == DeviceRule::kGreedyOt) greedy_ot_rule(draft, target, uniforms, verdict);
}

/// A block per case.
template <DeviceRule kRule>
__global__ void __launch_bounds__(kVerifyThreads)
    verify_kernel(const VerifyCase* cases, int vocab, DeviceVerdict* verdicts, NodeId* paths, int most_path) {
  const VerifyCase& own = cases[blockIdx.x];
  SharedArena arena;
  arena.take<std::byte>(BlockTeam::kSharedBytes);
  Complaint* complaint = arena.take<Complaint>(1);
  if (threadIdx.x == 0) *complaint = {VerifyProblem::kNone, 0};
  BlockDraft draft = {BlockTree(own, arena),
                      {own.row_of, static_cast<std::size_t>(own.nodes)},
                      own.draft_rows,
                      own.draft_points,
                      vocab,
                      complaint};
  BlockRows target = {own.target, own.argmax, vocab, complaint};
  BlockUniforms uniforms = {own.uniforms};
  BlockVerdict verdict = {0, TokenTree::kRoot};
  judge<kRule>(draft, target, uniforms, verdict, own.without_replacement);
  if (threadIdx.x != 0) return;
  const int accepted = draft.tree.depth(verdict.last);
  verdicts[blockIdx.x] = {verdict.next, accepted, complaint->problem, complaint->node};
  NodeId* path = paths + static_cast<std::int64_t>(blockIdx.x) * most_path;
  NodeId node = verdict.last;
  for (int i = most_path - 1; i >= 0; --i) {
    path[i] = i > accepted ? TokenTree::kNone : node;
    if (i <= accepted) node = draft.tree.parent(node);
  }
}

}  // namespace

void verify_tree(DeviceRule rule, const VerifyCase* cases, int count, int vocab, DeviceVerdict* verdicts, NodeId* paths,
                 int most_path, kernels::cuda::Stream& stream, int threads) {
  constexpr void (*kKernels[])(const VerifyCase*, int, DeviceVerdict*, NodeId*, int) = {
      verify_kernel<DeviceRule::kGreedy>, verify_kernel<DeviceRule::kNaive>,     verify_kernel<DeviceRule::kToken>,
      verify_kernel<DeviceRule::kBlock>,  verify_kernel<DeviceRule::kMultiStep>, verify_kernel<DeviceRule::kGreedyOt>};
  constexpr std::size_t kBytes =
      BlockTeam::kSharedBytes + kernels::cuda::arena_bytes<Complaint>(1) + BlockTree::kSharedBytes;
  if (count == 0) return;
  kernels::cuda::launch(kKernels[static_cast<std::size_t>(rule)], static_cast<unsigned>(count),
                        static_cast<unsigned>(threads), kBytes, stream, cases, vocab, verdicts, paths, most_path);
}

}  // namespace specmoe::cuda
