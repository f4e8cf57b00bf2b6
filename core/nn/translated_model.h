#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/nn/shared_vocabulary.h"

namespace specmoe::nn {

/// A draft model in its target's tokens. It reads each as SharedVocabulary spells it, and its law is the draft model's
/// over the tokens that both have: the logits of all others are -inf, before any temperature or cut, so what a draft is
/// drawn from is a law like any other and lossless policies stay lossless.
///
/// Row t has the same bits whatever it is batched with, since the draft model's has. A text may be as long as the draft
/// model's, counted by positions(). It cannot be tapped, and tells no experts.
class TranslatedModel final : public LanguageModel {
 public:
  TranslatedModel(std::shared_ptr<LanguageModel> model, SharedVocabulary vocabulary);

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> text = std::nullopt) const override;
  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override;
  int positions(TokenId token) const override { return static_cast<int>(vocabulary_.spelling(token).size()); }

 private:
  void check(std::span<const RowBlock> blocks, const ForwardResult& result) const;
  void answer(std::span<const RowBlock> blocks, ForwardResult& result) const;
  void answer_row(int draft_row, ForwardResult& result) const;

  std::shared_ptr<LanguageModel> model_;
  SharedVocabulary vocabulary_;
  ModelInfo info_;
  std::vector<RowBlock> draft_blocks_;
  ForwardResult draft_result_;
};

}  // namespace specmoe::nn
