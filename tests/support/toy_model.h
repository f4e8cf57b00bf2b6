#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/language_model.h"

namespace specmoe::test {

/// An exact little language model: the logits after a text are a hash of its last `order` tokens, so any way of
/// computing a row (alone, in a batch, in a tree, after a rollback) must give the same bits. It routes to toy experts
/// likewise.
///
/// It can be tapped: every boundary holds one number, a hash of the whole text. Its draft heads are toys whose tokens
/// are hashes of a token and the numbers that come with it; the one called "wide" reads two boundaries, others one. It
/// has three Medusa heads.
///
/// agreement  in [0, 1]: how much of the logits comes from the common seed rather than from the model's own, so that
/// two
///            toys with one seed and different `own_seed` make a target and a drafter that often agree
struct ToyOptions {
  int vocab = 17;
  int order = 3;
  std::uint64_t seed = 1;
  std::uint64_t own_seed = 0;
  double agreement = 1.0;
  double sharpness = 3.0;  // standard deviation of the logits
  int max_positions = 512;
  int layers = 2;
  int experts = 8;
  int experts_per_token = 2;
  int head_taps = 0;   // of a draft head: how many features come with a token
  int block_size = 0;  // of a draft head that proposes blocks: their rows
  std::string path{};  // where it says it was opened from, for its tokenizer
};

std::shared_ptr<LanguageModel> make_toy_model(const ToyOptions& options);

/// The toy's logits after `text`, computed directly.
std::vector<float> toy_logits(const ToyOptions& options, std::span<const TokenId> text);

/// Their softmax, in double.
std::vector<double> toy_probs(const ToyOptions& options, std::span<const TokenId> text);

/// What greedy decoding of `prompt` must give, computed without engine, cache or trees.
std::vector<TokenId> toy_greedy(const ToyOptions& options, std::vector<TokenId> prompt, int new_tokens);

}  // namespace specmoe::test
