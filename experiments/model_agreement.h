#pragma once

#include <span>
#include <vector>

#include "core/language_model.h"

namespace specmoe::cli {

/// How alike two models of one vocabulary are, over the tokens of some texts.
struct Agreement {
  int tokens = 0;
  int same = 0;                 // tokens that both hold the likeliest
  double divergence = 0;        // KL(reference || other) in nats, summed over tokens
  double largest_distance = 0;  // largest |difference| of two logits

  double share() const { return tokens == 0 ? 1.0 : static_cast<double>(same) / tokens; }
  double mean_divergence() const { return tokens == 0 ? 0.0 : divergence / tokens; }
};

constexpr int kAgreementRows = 64;  // of a prompt in one pass

/// Reads a prompt with both models and lets `reference` continue it greedily for up to `most_tokens` tokens, or to one
/// of its stop tokens; at each of them both models' rows are compared.
Agreement compare_models(LanguageModel& reference, LanguageModel& other, std::span<const TokenId> prompt,
                         int most_tokens);

void add(Agreement& sum, const Agreement& more);

}  // namespace specmoe::cli
