#include "core/token_counts.h"

namespace specmoe {

void TokenCounts::reset(int vocab, std::span<const TokenId> prompt) {
  counts_.assign(vocab, {});
  distinct_.clear();
  distinct_.reserve(vocab);
  for (TokenId token : prompt) {
    if (!counts_[token].in_prompt) distinct_.push_back(token);
    counts_[token].in_prompt = true;
  }
}

void TokenCounts::add(TokenId token) {
  if (counts_.empty()) return;
  Count& count = counts_[token];
  if (count.output == 0 && !count.in_prompt) distinct_.push_back(token);
  ++count.output;
}

void TokenCounts::penalise(std::span<float> logits, const TokenTree& tree, NodeId node,
                           const SamplingParams& sampling) {
  const auto repetition = static_cast<float>(sampling.repetition_penalty);
  const auto frequency = static_cast<float>(sampling.frequency_penalty);
  const auto presence = static_cast<float>(sampling.presence_penalty);
  const std::size_t before = distinct_.size();
  for (NodeId n = node; n != TokenTree::kRoot; n = tree.parent(n)) add(tree.token(n));
  for (TokenId token : distinct_) {
    float& logit = logits[token];
    logit = logit > 0.0F ? logit / repetition : logit * repetition;
    const std::int32_t count = counts_[token].output;
    if (count == 0) continue;
    logit -= frequency * static_cast<float>(count);
    logit -= presence;
  }
  for (NodeId n = node; n != TokenTree::kRoot; n = tree.parent(n)) --counts_[tree.token(n)].output;
  distinct_.resize(before);
}

}  // namespace specmoe
