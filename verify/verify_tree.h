#pragma once

#include <cstdint>

#include "core/device_rule.h"
#include "core/token_tree.h"
#include "core/uniforms.h"
#include "kernels/cuda/runtime.h"
#include "kernels/view.h"

/// Judging drafted trees on a device, by the same code as on the CPU: the rules of the policies (naive_rule.h, ...) are
/// compiled for both. Of the same rows and uniforms they make the same decisions, bit for bit.
namespace specmoe::cuda {

/// One drafted tree and what the target says about it. Pointers are to device memory.
struct VerifyCase {
  std::int32_t nodes = 0;                // root included; at most kMostVerifyNodes
  const TokenId* tokens = nullptr;       // [nodes]
  const NodeId* parents = nullptr;       // [nodes] TokenTree::kNone for the root, else a node before
  const std::int32_t* row_of = nullptr;  // [nodes] as Draft::row_of
  kernels::Rows<const float> draft_rows;
  const TokenId* draft_points = nullptr;  // [draft rows] all mass is on this token, -1: dense. Null: all dense
  kernels::Rows<const float> target;      // [nodes, V]; without data: all mass is on `argmax`
  const TokenId* argmax = nullptr;        // [nodes]
  UniformKey uniforms;
  bool without_replacement = false;  // as in DeviceJudge
};

/// Why a case could not be judged; what else its verdict says then means nothing.
enum class VerifyProblem : std::int32_t { kNone, kTargetRow, kDraftRow, kDraftToken, kTooManyRows, kLogits };

struct DeviceVerdict {
  TokenId next = 0;
  std::int32_t accepted = 0;
  VerifyProblem problem = VerifyProblem::kNone;
  NodeId node = 0;  // that the problem is about
};
/// Throws Error when the case could not be judged.
void check_verdict(const DeviceVerdict& verdict);

inline constexpr int kMostVerifyNodes = 512;  // of one tree, root included
inline constexpr int kVerifyThreads = 1024;   // enough to have a row's bytes in flight
/// How many of them a vocabulary keeps busy.
inline int verify_threads(int vocab) {
  int threads = 64;
  while (threads < kVerifyThreads && threads * 8 < vocab) threads *= 2;
  return threads;
}

/// verdicts  [count]
/// paths     [count, most_path] the root, then the accepted nodes, TokenTree::kNone behind the last
/// threads   per case: a multiple of 32, at most kVerifyThreads. Decisions do not depend on it
void verify_tree(DeviceRule rule, const VerifyCase* cases, int count, int vocab, DeviceVerdict* verdicts, NodeId* paths,
                 int most_path, kernels::cuda::Stream& stream, int threads = kVerifyThreads);

}  // namespace specmoe::cuda
