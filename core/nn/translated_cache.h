#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/nn/shared_vocabulary.h"

namespace specmoe::nn {

/// One sequence's keys and values of a draft model, by rows of its target's tokens: each stands for one or more rows of
/// the draft model's own cache, one behind the other. The first row of a text holds what the drafter expects in front
/// of it, unless that is what the token itself is.
class TranslatedCache final : public KVCache {
 public:
  /// model, vocabulary  outlive it
  /// text               as for new_cache(), in tokens of the target
  TranslatedCache(LanguageModel& model, const SharedVocabulary& vocabulary, int capacity, int text);

  int capacity() const override { return capacity_; }
  int committed() const override { return static_cast<int>(ends_.size()); }
  int staged() const override { return static_cast<int>(rows_.size()); }
  void keep(std::span<const std::int32_t> path) override;
  void truncate(int length) override;

  const SharedVocabulary* vocabulary() const { return &vocabulary_; }
  /// Writes down the rows of `block`, and returns them in draft tokens for the draft model's own cache. What is
  /// returned is good until the cache is changed.
  RowBlock stage(const RowBlock& block);
  /// Forgets rows written down that the draft model has not computed.
  void unstage();
  /// Of the draft rows of the last stage(), which counts from 0, the last one of row `row`, which counts from 0 too.
  std::int32_t last_draft_row(int row) const;

 private:
  /// Draft rows [first, end) among those staged.
  struct Row {
    std::int32_t first = 0;
    std::int32_t end = 0;
  };

  void append(TokenId token, std::int32_t parent);
  void make_room(std::size_t draft_rows);

  LanguageModel& model_;
  const SharedVocabulary& vocabulary_;
  int capacity_;
  int draft_text_;
  std::unique_ptr<KVCache> cache_;
  std::vector<TokenId> text_;       // committed draft tokens
  std::vector<std::int32_t> ends_;  // [committed] draft rows up to and with each row
  std::vector<TokenId> tokens_;     // [staged draft rows]
  std::vector<std::int32_t> parents_;
  std::vector<Row> rows_;       // [staged]
  std::size_t last_block_ = 0;  // its first row
  std::vector<std::int32_t> path_;
};

}  // namespace specmoe::nn
