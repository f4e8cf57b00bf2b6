#pragma once

#include <chrono>
#include <numeric>

#include "core/engine.h"
#include "core/grow.h"
#include "core/logit_rows.h"

/// What the engine's sources share: core/engine.cpp is the step, core/engine_requests.cpp what is around it,
/// core/engine_replay.cpp the step over a text that is there already.
namespace specmoe {

using Clock = std::chrono::steady_clock;

inline std::int64_t ns_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
}

/// Adds the time since it was made, or since the last call, to one stage after another.
class StageClock {
 public:
  void charge(std::int64_t& stage) {
    const Clock::time_point now = Clock::now();
    stage += ns_between(last_, now);
    last_ = now;
  }

 private:
  Clock::time_point last_ = Clock::now();
};

/// One running request.
struct Engine::Sequence {
  const Request* request = nullptr;
  RequestRecord* record = nullptr;
  std::unique_ptr<KVCache> cache;
  std::unique_ptr<DraftState> draft_state;
  Draft<float> draft;
  PhiloxUniforms uniforms{0, 0, 0};
  LogitChanges changes;
  LogitRows target_rows;
  Verdict verdict;
  TokenId root = 0;                 // last token of the text, not yet in the cache
  int longest = 0;                  // tokens that the text may come to, prompt and output
  int remaining = 0;                // tokens that may still be emitted
  bool context_bound = false;       // `remaining` ends at the context, not at max_new_tokens
  std::vector<std::int32_t> path;   // staged rows kept: the root and the accepted nodes
  std::int32_t emitted_before = 0;  // tokens emitted in earlier steps

  bool running() const { return record->finish == FinishReason::kRunning; }
  void find_path() {
    path.assign(1, TokenTree::kRoot);
    path.insert(path.end(), verdict.accepted.begin(), verdict.accepted.end());
  }
};

/// Buffers of step(), reused.
struct Engine::Workspace {
  std::vector<GrowRequest> grow_requests;
  GrowWorkspace grow;
  std::vector<RowBlock> blocks;
  ForwardResult result;
  std::int64_t tapped_width = 0;             // of a row that the drafter sees of the target; 0: it sees none
  int pass_rows = 0;                         // of the target's pass
  std::vector<std::int32_t> unique_experts;  // [MoE layers]
  std::vector<std::uint8_t> seen;            // [experts]

  HiddenRows hidden_rows(std::span<const float> tapped) const {
    if (tapped_width == 0) return {};
    const auto rows = static_cast<std::int64_t>(tapped.size()) / tapped_width;
    return kernels::contiguous(tapped.data(), rows, tapped_width);
  }

  /// Those of one sequence's tree in the target's pass.
  HiddenRows hidden_rows(int block) const {
    const auto first = static_cast<std::size_t>(result.row_begin[block] * tapped_width);
    const auto end = static_cast<std::size_t>(result.row_begin[block + 1] * tapped_width);
    return hidden_rows(std::span(result.tapped).subspan(first, end - first));
  }

  void count_unique_experts(int experts) {
    pass_rows = result.row_begin.back();
    unique_experts.assign(result.moe_layers, 0);
    if (result.moe_layers == 0) return;
    const std::size_t per_layer = result.experts.size() / result.moe_layers;
    for (int layer = 0; layer < result.moe_layers; ++layer) {
      seen.assign(experts, 0);
      for (std::size_t i = 0; i < per_layer; ++i) seen[result.experts[layer * per_layer + i]] = 1;
      unique_experts[layer] = std::accumulate(seen.begin(), seen.end(), 0);
    }
  }
};

}  // namespace specmoe
