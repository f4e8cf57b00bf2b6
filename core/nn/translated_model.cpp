#include "core/nn/translated_model.h"

#include <cmath>
#include <limits>
#include <utility>

#include "core/nn/block_check.h"
#include "core/nn/translated_cache.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

TranslatedCache& cache_of(const RowBlock& block) { return static_cast<TranslatedCache&>(*block.cache); }

}  // namespace

TranslatedModel::TranslatedModel(std::shared_ptr<LanguageModel> model, SharedVocabulary vocabulary)
    : model_(std::move(model)), vocabulary_(std::move(vocabulary)), info_(model_->info()) {
  info_.vocab_size = vocabulary_.target_size();
  info_.max_positions -= static_cast<int>(vocabulary_.begin().size());
  info_.stop_tokens.clear();  // ids of the other vocabulary
  draft_result_.want_experts = false;
}

std::unique_ptr<KVCache> TranslatedModel::new_cache(int capacity, std::optional<int> text) const {
  return std::make_unique<TranslatedCache>(*model_, vocabulary_, capacity, text.value_or(capacity));
}

void TranslatedModel::forward(std::span<const RowBlock> blocks, ForwardResult& result) {
  check(blocks, result);
  draft_blocks_.clear();
  try {
    for (const RowBlock& block : blocks) draft_blocks_.push_back(cache_of(block).stage(block));
    model_->forward(draft_blocks_, draft_result_);
  } catch (...) {
    for (const RowBlock& block : blocks) cache_of(block).unstage();
    throw;
  }
  answer(blocks, result);
}

void TranslatedModel::check(std::span<const RowBlock> blocks, const ForwardResult& result) const {
  SPECMOE_CHECK(result.taps.empty(), "forward: ", info_.name,
                " reads tokens of another vocabulary and cannot be tapped");
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto* cache = dynamic_cast<const TranslatedCache*>(blocks[b].cache);
    SPECMOE_CHECK(cache != nullptr && cache->vocabulary() == &vocabulary_, "forward: block ", b,
                  " needs a cache of this model (", info_.name, ")");
    check_block(blocks, b, info_.vocab_size);
  }
}

/// The draft model gave a row for each draft row of a block of which all are wanted; only the last one of each of the
/// target's tokens answers.
void TranslatedModel::answer(std::span<const RowBlock> blocks, ForwardResult& result) const {
  result.vocab = info_.vocab_size;
  result.row_begin.assign(1, 0);
  result.logits.clear();
  result.argmax.clear();
  result.tapped.clear();
  result.experts.clear();
  result.moe_layers = 0;
  result.moe_rows = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const int first = draft_result_.row_begin[b];
    const int rows = static_cast<int>(blocks[b].tokens.size());
    if (blocks[b].logits == LogitsWanted::kLast) answer_row(first, result);
    for (int i = 0; blocks[b].logits == LogitsWanted::kAll && i < rows; ++i) {
      answer_row(first + cache_of(blocks[b]).last_draft_row(i), result);
    }
    result.row_begin.push_back(static_cast<std::int32_t>(result.argmax.size()));
  }
}

/// The argmax is found here, not taken over: the draft model's own may be a token that the target lacks, and equal ones
/// lie in another order there.
void TranslatedModel::answer_row(int draft_row, ForwardResult& result) const {
  const std::span<const float> draft = draft_result_.logits_row(draft_row);
  const std::size_t row = result.logits.size();
  if (result.want_logits) {
    result.logits.resize(row + static_cast<std::size_t>(info_.vocab_size), -std::numeric_limits<float>::infinity());
  }
  TokenId best = -1;
  float largest = 0;
  for (const SharedToken& token : vocabulary_.shared()) {
    const float logit = draft[static_cast<std::size_t>(token.draft)];
    if (result.want_logits) result.logits[row + static_cast<std::size_t>(token.target)] = logit;
    if (best < 0 ? !std::isnan(logit) : logit > largest) best = token.target, largest = logit;
  }
  result.argmax.push_back(best);
}

}  // namespace specmoe::nn
