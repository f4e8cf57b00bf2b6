#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/sampling_params.h"
#include "core/token_tree.h"

namespace specmoe {

/// How often each token stands in one text, which is what its penalties hang on. Counts nothing until reset().
class TokenCounts {
 public:
  /// Begins a text. Allocates all that it will need: 12 bytes a token of the vocabulary.
  void reset(int vocab, std::span<const TokenId> prompt);
  /// A token was emitted.
  void add(TokenId token);
  /// Changes what the model says after a node into what a request with penalties samples from. The nodes of the path
  /// count as output, so siblings' rows differ. Takes time for each distinct token of the text, not of the vocabulary.
  ///
  /// logits  [V] of `node`
  /// source  repetition: Keskar et al. 2019 (CTRL), arXiv:1909.05858, over prompt and output, as in transformers;
  ///         frequency and presence: OpenAI's, over the output, after it, as in vLLM
  void penalise(std::span<float> logits, const TokenTree& tree, NodeId node, const SamplingParams& sampling);

 private:
  struct Count {
    std::int32_t output = 0;
    bool in_prompt = false;
  };
  std::vector<Count> counts_;      // [V]
  std::vector<TokenId> distinct_;  // those of prompt and output
};

}  // namespace specmoe
