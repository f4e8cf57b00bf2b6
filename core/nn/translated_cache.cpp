#include "core/nn/translated_cache.h"

#include <algorithm>

#include "core/logit_rows.h"
#include "kernels/check.h"

namespace specmoe::nn {

/// Room for half as many draft rows again: vocabularies of which a drafter makes use share most of a text's tokens.
TranslatedCache::TranslatedCache(LanguageModel& model, const SharedVocabulary& vocabulary, int capacity, int text)
    : model_(model),
      vocabulary_(vocabulary),
      capacity_(capacity),
      draft_text_(text + static_cast<int>(vocabulary.begin().size())),
      cache_(model.new_cache(capacity + capacity / 2 + static_cast<int>(vocabulary.begin().size()), draft_text_)) {
  text_.reserve(static_cast<std::size_t>(cache_->capacity()));
  ends_.reserve(static_cast<std::size_t>(capacity));
}

RowBlock TranslatedCache::stage(const RowBlock& block) {
  const std::size_t first = tokens_.size();
  last_block_ = rows_.size();
  for (std::size_t i = 0; i < block.tokens.size(); ++i) append(block.tokens[i], block.parents[i]);
  make_room(first);
  return {cache_.get(), std::span(tokens_).subspan(first), std::span(parents_).subspan(first), block.logits};
}

void TranslatedCache::append(TokenId token, std::int32_t parent) {
  std::int32_t before = parent < 0 ? -1 : rows_[static_cast<std::size_t>(parent)].end - 1;
  const auto first = static_cast<std::int32_t>(tokens_.size());
  const auto push = [&](TokenId draft) {
    tokens_.push_back(draft);
    parents_.push_back(before);
    before = static_cast<std::int32_t>(tokens_.size()) - 1;
  };
  const std::span<const TokenId> spelling = vocabulary_.spelling(token);
  const std::vector<TokenId>& begin = vocabulary_.begin();
  const bool starts_text = parent < 0 && committed() == 0;
  if (starts_text && !begin.empty() && begin.front() != spelling.front())
    std::for_each(begin.begin(), begin.end(), push);
  std::for_each(spelling.begin(), spelling.end(), push);
  rows_.push_back({first, static_cast<std::int32_t>(tokens_.size())});
}

/// Where the draft model's cache is too small, takes one of twice the size and computes again what this one holds:
/// caches cannot be copied, and rows have the same bits whenever they are computed.
///
/// computed  staged draft rows that the draft model has computed; those behind them are to come
void TranslatedCache::make_room(std::size_t computed) {
  const int needed = static_cast<int>(text_.size() + tokens_.size());
  if (needed <= cache_->capacity()) return;
  cache_ = model_.new_cache(2 * needed, draft_text_);
  prefill(model_, *cache_, text_);
  if (computed == 0) return;
  ForwardResult ignored;
  ignored.want_experts = false;
  const RowBlock staged{cache_.get(), std::span(tokens_).first(computed), std::span(parents_).first(computed),
                        LogitsWanted::kNone};
  model_.forward({&staged, 1}, ignored);
}

void TranslatedCache::unstage() {
  tokens_.resize(static_cast<std::size_t>(cache_->staged()));
  parents_.resize(tokens_.size());
  while (!rows_.empty() && static_cast<std::size_t>(rows_.back().end) > tokens_.size()) rows_.pop_back();
}

std::int32_t TranslatedCache::last_draft_row(int row) const {
  const Row& wanted = rows_[last_block_ + static_cast<std::size_t>(row)];
  return wanted.end - 1 - rows_[last_block_].first;
}

void TranslatedCache::keep(std::span<const std::int32_t> path) {
  path_.clear();
  for (const std::int32_t row : path) {
    SPECMOE_CHECK(row >= 0 && row < staged(), "KV cache: cannot keep staged row ", row, " of ", staged());
    for (std::int32_t draft = rows_[static_cast<std::size_t>(row)].first;
         draft < rows_[static_cast<std::size_t>(row)].end; ++draft) {
      path_.push_back(draft);
    }
  }
  cache_->keep(path_);
  for (const std::int32_t row : path) {
    const Row& kept = rows_[static_cast<std::size_t>(row)];
    text_.insert(text_.end(), tokens_.begin() + kept.first, tokens_.begin() + kept.end);
    ends_.push_back(static_cast<std::int32_t>(text_.size()));
  }
  unstage();
}

void TranslatedCache::truncate(int length) {
  SPECMOE_CHECK(length >= 0 && length <= committed(), "KV cache: cannot cut ", committed(), " committed rows to ",
                length);
  const std::int32_t rows = length == 0 ? 0 : ends_[static_cast<std::size_t>(length) - 1];
  cache_->truncate(rows);
  text_.resize(static_cast<std::size_t>(rows));
  ends_.resize(static_cast<std::size_t>(length));
  unstage();
}

}  // namespace specmoe::nn
