#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/logit_changes.h"
#include "core/prob_rows.h"
#include "core/sampling_params.h"

namespace specmoe {

/// The argmax of row `row` of a pass. Throws Error naming the node when the row holds no number at all.
TokenId checked_argmax(const ForwardResult& result, int row, NodeId node);

/// The logits [V] of row `row` of a pass. Throws Error naming the node when the pass gave none, or the row holds no
/// number at all.
std::span<const float> checked_logits(const ForwardResult& result, int row, NodeId node);

/// probs [V] = logits after temperature, top-k, top-p and min-p. Throws Error naming the node when they have NaN.
/// scratch is grown to V when there is a cut.
void logits_to_probs(std::span<const float> logits, NodeId node, const SamplingParams& sampling, std::span<float> probs,
                     std::vector<std::int32_t>& scratch);

/// Rows of prefill()'s passes but the last.
inline constexpr int kPrefillRows = 256;

/// Fills a cache with `tokens` in passes of kPrefillRows, without logits. Returns what `taps` hold of each token, as
/// ForwardResult::tapped.
///
/// features  [tokens, W] of a draft head
/// poll      called before every pass; what it throws ends the passes
std::vector<float> prefill(LanguageModel& model, KVCache& cache, std::span<const TokenId> tokens,
                           const std::vector<int>& taps = {}, std::span<const float> features = {},
                           const std::function<void()>& poll = {});

/// The target's rows of one tree: made from logits when first asked for, a point on the argmax when the request is
/// greedy. So a walk that visits three of sixty nodes normalises three rows.
class LogitRows final : public ProbRows<float> {
 public:
  /// first_row  row of the tree's root in `result`, the other nodes following
  /// changes    of the request, whose text ends in the root
  void reset(const ForwardResult& result, int first_row, const TokenTree& tree, const SamplingParams& sampling,
             LogitChanges& changes);

  int vocab() const override { return result_->vocab; }
  ProbRow<float> row(int n) override;

 private:
  int make_row(NodeId n);

  const ForwardResult* result_ = nullptr;
  int first_row_ = 0;
  const TokenTree* tree_ = nullptr;
  LogitChanges* changes_ = nullptr;
  SamplingParams sampling_;
  StoredRows<float> made_;
  std::vector<std::int32_t> index_of_;  // [nodes] into made_, -1: not made yet
  std::vector<std::int32_t> scratch_;
};

}  // namespace specmoe
