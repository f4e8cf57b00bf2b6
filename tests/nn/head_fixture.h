#pragma once

#include <algorithm>
#include <cmath>

#include "core/language_model.h"
#include "core/logit_rows.h"
#include "tests/nn/model_fixture.h"

// What tests/golden/make_head_fixtures.py computed with draft heads and Medusa heads, and what holds for them on every
// device.
namespace specmoe::nn::testing {

inline const std::string kHeads = SPECMOE_TEST_DATA "/golden/heads/";

/// Runs rows of a head behind what the cache holds, and keeps them.
inline ForwardResult run_head(const DraftHead& head, KVCache& cache, std::span<const TokenId> tokens,
                              std::span<const float> features) {
  ForwardResult result;
  result.taps = {head.recycled};
  std::vector<std::int32_t> rows(tokens.size());
  std::iota(rows.begin(), rows.end(), -1);
  const RowBlock block{&cache, tokens, rows, LogitsWanted::kAll, features};
  head.model->forward({&block, 1}, result);
  std::iota(rows.begin(), rows.end(), 0);
  cache.keep(rows);
  return result;
}

inline void expect_near_plain(std::span<const float> got, std::span<const float> expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isinf(expected[i])) {
      ASSERT_EQ(got[i], expected[i]) << what << " " << i;
    } else {
      // float32 sums of a few hundred terms; the largest values are near 10.
      ASSERT_NEAR(got[i], expected[i], 2e-4) << what << " " << i;
    }
  }
}

inline TokenId best_of(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// A head, the model of tests/golden/models that it is for, and what it must give.
class HeadFixture {
 public:
  inline static const std::vector<std::string> kNames = {
      "eagle1",          "eagle3_safeailab", "eagle3_specforge", "eagle3_speculators",
      "mtp_deepseek_v3", "mtp_glm4_moe",     "mtp_glm4_moe_lite"};

  explicit HeadFixture(const std::string& name) : folder(kHeads + name), target(SPECMOE_TEST_DATA "/golden/models/") {
    target += name.starts_with("mtp_") ? name.substr(4) + "_a" : "mixtral_a";
    const SafetensorsFile file(folder + "/expected.safetensors");
    const auto copy = [&file](const std::string& tensor_name, auto& values) {
      for (const Tensor& tensor : file.tensors()) {
        if (tensor.name != tensor_name) continue;
        values.resize((tensor.end - tensor.begin) / sizeof(values[0]));
        std::memcpy(values.data(), tensor.data, tensor.end - tensor.begin);
      }
    };
    copy("tokens", tokens_);
    copy("features", features_);
    copy("logits", logits_);
    copy("recycled", handed_on_);
  }

  std::span<const TokenId> first_tokens(std::size_t count) const { return tokens(0, count); }
  std::span<const float> first_features(std::size_t count) const { return features(0, count); }

  void expect_plain_results(const DraftHead& head) const {
    const auto cache = head.model->new_cache(64);
    ForwardResult result = run_head(head, *cache, first_tokens(kTargetRows), first_features(kTargetRows));
    const std::size_t width = handed_on_.size() / tokens_.size();
    ASSERT_EQ(static_cast<std::size_t>(head.model->info().hidden_size), width);
    expect_near_plain(result.logits, logits(0, kTargetRows), "logits");
    expect_near_plain(result.tapped, std::span(handed_on_).first(kTargetRows * width), "handed on");
    for (std::size_t i = kTargetRows; i < tokens_.size(); ++i) {
      const std::vector<float> before(result.tapped.end() - static_cast<std::ptrdiff_t>(width), result.tapped.end());
      result = run_head(head, *cache, tokens(i, 1), before);
      expect_near_plain(result.logits, logits(i, 1), concat("logits of row ", i));
      EXPECT_EQ(result.argmax[0], best_of(result.logits));
    }
  }

  void expect_rows_stand_alone(const DraftHead& head) const {
    const auto whole = head.model->new_cache(64);
    const ForwardResult expected = run_head(head, *whole, first_tokens(kTargetRows), first_features(kTargetRows));
    const std::size_t width = expected.tapped.size() / kTargetRows;
    const auto cache = head.model->new_cache(64);
    std::vector<float> logits, handed_on;
    for (std::size_t i = 0; i < kTargetRows; ++i) {
      const ForwardResult result = run_head(head, *cache, tokens(i, 1), features(i, 1));
      logits.insert(logits.end(), result.logits.begin(), result.logits.end());
      handed_on.insert(handed_on.end(), result.tapped.begin(), result.tapped.end());
    }
    EXPECT_TRUE(same_bits(logits, expected.logits));
    EXPECT_TRUE(same_bits(handed_on, expected.tapped));

    // A sequence that goes on from the target's rows beside one that goes on from the head's.
    const std::span<const float> last = std::span(expected.tapped).last(width);
    const ForwardResult alone = run_head(head, *whole, tokens(kTargetRows, 1), last);
    const auto other = head.model->new_cache(64);
    ForwardResult together;
    together.want_logits = false;
    together.taps = {head.recycled};
    const std::vector<std::int32_t> parents = {-1, 0, 1};
    const std::vector<RowBlock> blocks = {
        {other.get(), first_tokens(3), parents, LogitsWanted::kAll, first_features(3)},
        {cache.get(), tokens(kTargetRows, 1), std::span(parents).first(1), LogitsWanted::kAll, last}};
    head.model->forward(blocks, together);
    EXPECT_TRUE(same_bits(std::span(together.tapped).first(3 * width), std::span(expected.tapped).first(3 * width)));
    EXPECT_TRUE(same_bits(std::span(together.tapped).last(width), alone.tapped));
    EXPECT_EQ(together.argmax[3], alone.argmax[0]);
  }

  std::string folder;
  std::string target;

 private:
  static constexpr std::size_t kTargetRows = 8;

  std::span<const TokenId> tokens(std::size_t first, std::size_t count) const {
    return std::span(tokens_).subspan(first, count);
  }
  std::span<const float> features(std::size_t first, std::size_t count) const {
    const std::size_t width = features_.size() / kTargetRows;
    return std::span(features_).subspan(first * width, count * width);
  }
  std::span<const float> logits(std::size_t first, std::size_t count) const {
    const std::size_t vocab = logits_.size() / tokens_.size();
    return std::span(logits_).subspan(first * vocab, count * vocab);
  }

  std::vector<TokenId> tokens_;   // [12]
  std::vector<float> features_;   // [8, W] of the target; the other four rows go on from what the head handed on
  std::vector<float> logits_;     // [12, V]
  std::vector<float> handed_on_;  // [12, D]
};

/// A head for the model mixtral_a that proposes blocks, a text's features, the block behind it, and what its rows must
/// give (make_block_head_fixtures.py).
class BlockFixture {
 public:
  inline static const std::vector<std::string> kNames = {"dflash", "dflash_window"};

  explicit BlockFixture(const std::string& name) : folder(kHeads + name) {
    const SafetensorsFile file(folder + "/expected.safetensors");
    for (const Tensor& tensor : file.tensors()) {
      const auto copy = [&tensor](auto& values) {
        values.resize((tensor.end - tensor.begin) / sizeof(values[0]));
        std::memcpy(values.data(), tensor.data, tensor.end - tensor.begin);
      };
      if (tensor.name == "features") copy(features_);
      if (tensor.name == "block") copy(block_);
      if (tensor.name == "logits") copy(logits_);
    }
  }

  std::span<const float> features(std::size_t first, std::size_t count) const {
    const std::size_t width = features_.size() / kText;
    return std::span(features_).subspan(first * width, count * width);
  }

  void expect_plain_results(const DraftHead& head) const {
    EXPECT_EQ(head.model->info().block_size, static_cast<int>(block_.size()));
    EXPECT_EQ(head.model->info().mask_token, block_[1]);
    const auto cache = head.model->new_cache(64);
    read(head, *cache, 0, kText);
    for (const int again : {0, 1}) {  // a block leaves nothing behind
      expect_near_plain(propose(head, *cache).logits, logits_, concat("logits ", again));
    }
  }

  /// other  the same head, perhaps on more threads
  void expect_rows_stand_alone(const DraftHead& head, const DraftHead& other) const {
    const auto whole = head.model->new_cache(64);
    read(head, *whole, 0, kText);
    const ForwardResult expected = propose(head, *whole);
    const auto pieces = head.model->new_cache(64);
    for (std::size_t i = 0; i < kText; ++i) read(head, *pieces, i, 1);
    EXPECT_TRUE(same_bits(propose(head, *pieces).logits, expected.logits));

    const auto shorter = head.model->new_cache(64);
    read(head, *shorter, 3, 2);
    const ForwardResult alone = propose(head, *shorter);
    const std::vector<std::int32_t> rows = chain();
    const RowBlock blocks[] = {{shorter.get(), block_, rows}, {pieces.get(), block_, rows}};
    ForwardResult together;
    head.model->forward(blocks, together);
    EXPECT_TRUE(same_bits(std::span(together.logits).first(alone.logits.size()), alone.logits));
    EXPECT_TRUE(same_bits(std::span(together.logits).last(expected.logits.size()), expected.logits));
    const auto again = other.model->new_cache(64);
    read(other, *again, 0, kText);
    EXPECT_TRUE(same_bits(propose(other, *again).logits, expected.logits));
  }

  std::string folder;

 private:
  static constexpr std::size_t kText = 9;

  std::vector<std::int32_t> chain() const {
    std::vector<std::int32_t> rows(block_.size());
    std::iota(rows.begin(), rows.end(), -1);
    return rows;
  }
  /// Puts features of the text into a cache. What its tokens are does not matter.
  void read(const DraftHead& head, KVCache& cache, std::size_t first, std::size_t count) const {
    prefill(*head.model, cache, std::vector<TokenId>(count, static_cast<TokenId>(first)), {}, features(first, count));
  }
  ForwardResult propose(const DraftHead& head, KVCache& cache) const {
    ForwardResult result = run_rows(*head.model, cache, block_, chain());
    cache.truncate(cache.committed());
    return result;
  }

  std::vector<float> features_;  // [9, W]
  std::vector<TokenId> block_;   // [B]
  std::vector<float> logits_;    // [B, V]
};

/// Medusa heads for the model mixtral_a, and what they must give.
class MedusaFixture {
 public:
  inline static const std::vector<std::string> kNames = {"medusa", "medusa_borrowing"};

  explicit MedusaFixture(const std::string& name) : folder(kHeads + name) {
    const SafetensorsFile file(folder + "/expected.safetensors");
    for (const Tensor& tensor : file.tensors()) {
      std::vector<float>& values = tensor.name == "features" ? features_ : logits_;
      values.resize((tensor.end - tensor.begin) / sizeof(float));
      std::memcpy(values.data(), tensor.data, tensor.end - tensor.begin);
    }
  }

  void expect_plain_results(MedusaHeads& heads) const {
    ForwardResult result;
    std::vector<float> logits;
    for (int head = 0; head < heads.count(); ++head) {
      heads.forward(head, rows(0, kRows), result);
      logits.insert(logits.end(), result.logits.begin(), result.logits.end());
      for (int row = 0; row < static_cast<int>(kRows); ++row) {
        EXPECT_EQ(result.argmax[static_cast<std::size_t>(row)], best_of(result.logits_row(row)));
      }
    }
    expect_near_plain(logits, logits_, "logits");
  }

  /// alone  the same heads, perhaps on fewer threads
  void expect_rows_stand_alone(MedusaHeads& heads, MedusaHeads& alone) const {
    ForwardResult together;
    ForwardResult single;
    for (int head = 0; head < heads.count(); ++head) {
      heads.forward(head, rows(0, kRows), together);
      for (int row = 0; row < static_cast<int>(kRows); ++row) {
        alone.forward(head, rows(row, 1), single);
        EXPECT_TRUE(same_bits(single.logits_row(0), together.logits_row(row))) << head << " " << row;
        EXPECT_EQ(single.argmax[0], together.argmax[static_cast<std::size_t>(row)]);
      }
    }
  }

  std::string folder;

 private:
  static constexpr std::int64_t kRows = 8;

  kernels::Rows<const float> rows(std::int64_t first, std::int64_t count) const {
    const auto width = static_cast<std::int64_t>(features_.size()) / kRows;
    return kernels::contiguous(features_.data() + first * width, count, width);
  }

  std::vector<float> features_;  // [8, D]
  std::vector<float> logits_;    // [heads, 8, V]
};

}  // namespace specmoe::nn::testing
