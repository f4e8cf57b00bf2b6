#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core/language_model.h"

namespace specmoe {

/// A model that computes the row after each text once and remembers it, so that tens of thousands of requests for one
/// prompt cost a few hundred passes. A row has the same bits whatever else is in its pass, so nothing else changes.
class RememberingModel final : public LanguageModel {
 public:
  explicit RememberingModel(std::shared_ptr<LanguageModel> model)
      : model_(std::move(model)), cache_(model_->new_cache(kLongestText)) {
    computed_.want_experts = false;
  }

  const ModelInfo& info() const override { return model_->info(); }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> /*text*/) const override {
    return std::make_unique<TextCache>(capacity);
  }

  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override {
    result.vocab = info().vocab_size;
    result.row_begin.assign(1, 0);
    result.logits.clear();
    result.argmax.clear();
    result.experts.clear();
    for (const RowBlock& block : blocks) {
      auto& cache = static_cast<TextCache&>(*block.cache);
      for (std::size_t i = 0; i < block.tokens.size(); ++i) {
        cache.rows.emplace_back(block.tokens[i], block.parents[i]);
        const bool last = i + 1 == block.tokens.size();
        if (block.logits == LogitsWanted::kNone || (block.logits == LogitsWanted::kLast && !last)) continue;
        const Row& row = row_after(cache.text_of_last());
        result.logits.insert(result.logits.end(), row.logits.begin(), row.logits.end());
        result.argmax.push_back(row.argmax);
      }
      result.row_begin.push_back(static_cast<std::int32_t>(result.argmax.size()));
    }
  }

 private:
  static constexpr int kLongestText = 128;

  using Text = std::vector<TokenId>;
  struct Row {
    std::vector<float> logits;  // [V]
    TokenId argmax;
  };

  /// The tokens of a sequence in place of its keys and values.
  struct TextCache final : KVCache {
    explicit TextCache(int rows_at_most) : limit(rows_at_most) {}
    int capacity() const override { return limit; }
    int committed() const override { return static_cast<int>(text.size()); }
    int staged() const override { return static_cast<int>(rows.size()); }
    void keep(std::span<const std::int32_t> path) override {
      for (std::int32_t row : path) text.push_back(rows[row].first);
      rows.clear();
    }
    void truncate(int length) override {
      text.resize(length);
      rows.clear();
    }
    Text text_of_last() const {
      Text all = text;
      for (int row = staged() - 1; row >= 0; row = rows[row].second) all.push_back(rows[row].first);
      std::reverse(all.begin() + committed(), all.end());
      return all;
    }

    int limit;
    Text text;
    std::vector<std::pair<TokenId, std::int32_t>> rows;  // staged: token, parent
  };

  const Row& row_after(const Text& text) {
    const auto known = rows_.find(text);
    if (known != rows_.end()) return known->second;
    const auto [end_of_common, unused] = std::mismatch(cached_.begin(), cached_.end(), text.begin(), text.end() - 1);
    const auto common = end_of_common - cached_.begin();
    cache_->truncate(static_cast<int>(common));
    std::vector<std::int32_t> chain(text.size() - common);
    std::iota(chain.begin(), chain.end(), -1);
    const RowBlock block{cache_.get(), std::span(text).subspan(common), chain, LogitsWanted::kLast};
    model_->forward({&block, 1}, computed_);
    std::iota(chain.begin(), chain.end(), 0);
    cache_->keep(chain);
    cached_ = text;
    return rows_.emplace(text, Row{computed_.logits, computed_.argmax[0]}).first->second;
  }

  std::shared_ptr<LanguageModel> model_;
  std::unique_ptr<KVCache> cache_;  // of the text computed last
  Text cached_;
  ForwardResult computed_;
  std::map<Text, Row> rows_;
};

}  // namespace specmoe
