#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/logits_processor.h"
#include "core/sampling_params.h"
#include "core/token_counts.h"
#include "core/token_tree.h"

namespace specmoe {

/// What one request does to logits before it samples from them, by the text so far: penalties, then its processor.
/// Changes nothing until reset().
class LogitChanges {
 public:
  /// Begins a text.
  ///
  /// text       tokens that it will have at most, those of trees included
  /// processor  may be null
  void reset(int vocab, int text, std::span<const TokenId> prompt, const SamplingParams& sampling,
             std::shared_ptr<LogitsProcessor> processor);
  /// Whether there are any. If not, the argmax of a greedy request's logits is all that is needed of them.
  bool any() const { return sampling_.penalises() || processor_ != nullptr; }
  /// A token was emitted.
  void add(TokenId token);
  /// The logits [V] of `node`, changed by the text that ends there; the same ones when there is nothing to change, else
  /// good until the next call. Empty when the processor forbade every token, or all that a drafter with fewer tokens
  /// has. Throws Error naming the node when it left NaN or infinity.
  std::span<const float> applied(std::span<const float> logits, const TokenTree& tree, NodeId node);

 private:
  void process(const TokenTree& tree, NodeId node);

  SamplingParams sampling_;
  std::shared_ptr<LogitsProcessor> processor_;
  TokenCounts counts_;          // when there are penalties
  std::vector<TokenId> text_;   // when there is a processor: prompt and output
  std::size_t prompt_ = 0;      // of these
  std::vector<float> changed_;  // [V]
};

}  // namespace specmoe
