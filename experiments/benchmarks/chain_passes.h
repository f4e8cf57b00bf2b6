#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "core/cost_model.h"
#include "core/logit_rows.h"
#include "kernels/thread_pool.h"

namespace specmoe::bench {

/// What passes read and compute.
struct Work {
  std::vector<kernels::Range> reads;  // in a buffer as large as the model: per layer its dense part, then its experts
  std::vector<int> rows;              // that are multiplied with the weights of a read
  double experts = 0;                 // distinct, mean over layers and passes
  PassWork pass;                      // of one pass, keys and values counted as well; they are few, and not in `reads`
};

/// Passes of rows of a chain at successive positions of a model's own greedy text.
class ChainPasses {
 public:
  static constexpr int kMostRows = 32;
  static constexpr int kContext = 64;  // tokens in the cache before the first pass

  ChainPasses(std::shared_ptr<LanguageModel> model, int passes)
      : model_(std::move(model)), passes_(passes), cache_(model_->new_cache(kContext + passes + kMostRows)) {
    std::iota(chain_, chain_ + kMostRows, -1);
    text_ = {5, 6, 7};
    while (static_cast<int>(text_.size()) < kContext + passes + kMostRows) {
      const int fed = cache_->committed();
      prefill(*model_, *cache_, std::span(text_).subspan(fed, text_.size() - 1 - fed));
      text_.push_back(pass(static_cast<int>(text_.size()) - 1, 1));
      cache_->truncate(static_cast<int>(text_.size()) - 2);
    }
  }

  /// Passes of `rows` rows at positions kContext, kContext + 1, ...
  void run(int rows) {
    cache_->truncate(kContext);
    for (int i = 0; i < passes_; ++i) {
      pass(kContext + i, rows);
      cache_->keep(std::span<const std::int32_t>(kRoot, 1));
    }
  }

  /// What run(rows) reads and computes.
  Work work(int rows) {
    Work total;
    cache_->truncate(kContext);
    for (int i = 0; i < passes_; ++i) {
      pass(kContext + i, rows);
      total.experts += add_reads(rows, total) / std::max(1, result_.moe_layers) / passes_;
      cache_->keep(std::span<const std::int32_t>(kRoot, 1));
    }
    total.pass = pass_work(model_->info(), rows, mean_context(), total.experts);
    return total;
  }

  double mean_context() const { return kContext + (passes_ - 1) / 2.0; }
  int passes() const { return passes_; }

 private:
  static constexpr std::int32_t kRoot[] = {0};

  /// Stages text [at, at + rows); returns the token that follows the first row.
  TokenId pass(int at, int rows) {
    const RowBlock block = {cache_.get(), std::span(text_).subspan(at, rows),
                            std::span<const std::int32_t>(chain_, rows), LogitsWanted::kAll};
    model_->forward({&block, 1}, result_);
    return result_.argmax.front();
  }

  /// Appends the reads of the last pass, of `rows` rows; returns its distinct experts, summed over layers.
  double add_reads(int rows, Work& work) const {
    const ModelInfo& info = model_->info();
    const std::int64_t chosen = std::int64_t{result_.moe_layers} * info.experts_per_token * info.expert_bytes;
    const std::int64_t dense = (info.active_weight_bytes - chosen) / info.layers / 64 * 64;
    const std::int64_t expert = info.expert_bytes / 64 * 64;
    const std::size_t choices = result_.moe_layers == 0 ? 0 : result_.experts.size() / std::size_t(result_.moe_layers);
    double distinct = 0;
    std::int64_t at = 0;
    const auto read = [&](std::int64_t bytes, int multiplied) {
      work.reads.push_back({at, at + bytes});
      work.rows.push_back(multiplied);
    };
    for (int layer = 0; layer < info.layers; ++layer) {
      read(dense, rows);
      at += dense;
      if (layer >= result_.moe_layers) continue;
      std::vector<int> chosen_by(static_cast<std::size_t>(info.experts));
      for (std::size_t i = 0; i < choices; ++i) ++chosen_by[result_.experts[std::size_t(layer) * choices + i]];
      for (const int choosing : chosen_by) {
        if (choosing != 0) read(expert, choosing);
        distinct += choosing != 0;
        at += expert;
      }
    }
    return distinct;
  }

  std::shared_ptr<LanguageModel> model_;
  int passes_;
  std::unique_ptr<KVCache> cache_;
  std::vector<TokenId> text_;
  std::int32_t chain_[kMostRows];
  ForwardResult result_;
};

/// Seconds of a pass whose parts follow one another, each as long as the larger of reading and multiplying takes.
inline double in_order(const Work& work, double reading, double multiplying) {
  double bytes = 0, products = 0, seconds = 0;
  const auto size = [&](std::size_t i) { return static_cast<double>(work.reads[i].end - work.reads[i].begin); };
  for (std::size_t i = 0; i < work.reads.size(); ++i) {
    bytes += size(i);
    products += size(i) * work.rows[i];
  }
  for (std::size_t i = 0; i < work.reads.size(); ++i) {
    seconds += std::max(reading * size(i) / bytes, multiplying * size(i) * work.rows[i] / products);
  }
  return seconds;
}

}  // namespace specmoe::bench
