#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/types.h"

namespace specmoe {

/// Wall time of the stages of a step, ns. In a batch each sequence is charged an equal share of the step.
struct StageTimes {
  std::int64_t draft_ns = 0;   // growing the trees, the drafter's commit included
  std::int64_t verify_ns = 0;  // the target's forward pass
  std::int64_t judge_ns = 0;   // sampling transforms and the acceptance policy
  std::int64_t rest_ns = 0;    // cache compaction, emission, bookkeeping

  std::int64_t total_ns() const { return draft_ns + verify_ns + judge_ns + rest_ns; }
  StageTimes& operator+=(const StageTimes& other);
};

/// What one step of one sequence did. Only counts and times: rates are derived in core/metrics.
///
/// Every drafted node is accepted (on the kept path), rejected (its parent is on the path, itself not) or unjudged
/// (its parent is not on the path): drafted = accepted + rejected + unjudged.
/// emitted = accepted + 1 - truncated: a stop among the accepted tokens takes away the extra token (truncated = 1), and
/// what lies behind it on the path counts as unjudged. Nothing past a stop is ever counted as accepted or emitted.
struct StepRecord {
  std::int32_t drafted = 0;
  std::int32_t accepted = 0;
  std::int32_t rejected = 0;
  std::int32_t unjudged = 0;
  std::int32_t emitted = 0;
  std::int32_t truncated = 0;
  std::int32_t drafted_depth = 0;  // depth of the deepest node
  std::int32_t judged_depth = 0;   // deepest depth at which a node was judged: accepted, or accepted + 1
  std::int32_t pass_rows = 0;      // rows of the target pass, all sequences together
  StageTimes times;
};

enum class FinishReason : std::uint8_t { kRunning, kMaxTokens, kStopToken, kStopText, kContextFull };
const char* finish_reason_name(FinishReason reason);

/// Everything that is known about a finished request.
struct RequestRecord {
  std::string id;
  std::vector<TokenId> prompt;
  std::vector<TokenId> tokens;  // emitted, a stop token included
  /// For each emitted token whether it was a draft token that was accepted.
  std::vector<std::uint8_t> from_draft;
  FinishReason finish = FinishReason::kRunning;
  std::vector<StepRecord> steps;
  /// [steps, MoE layers] distinct experts over all rows of the step's target pass.
  std::vector<std::int32_t> unique_experts;
  int moe_layers = 0;
  std::int64_t prefill_ns = 0;  // target and drafter
  bool whole_steps = false;     // a device ran them; their time is then all in verify_ns
};

}  // namespace specmoe
