#include "tests/support/toy_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/uniforms.h"
#include "kernels/check.h"

namespace specmoe::test {
namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15ULL + (hash << 6) + (hash >> 2);
  hash *= 0xBF58476D1CE4E5B9ULL;
  return hash ^ (hash >> 31);
}

void add_toy_row(const ToyOptions& options, std::span<const TokenId> text, ForwardResult& result) {
  const std::vector<float> logits = toy_logits(options, text);
  result.argmax.push_back(static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  result.logits.insert(result.logits.end(), logits.begin(), logits.end());
}

/// Tokens, not keys and values: the toy recomputes each row from its text.
class ToyCache final : public KVCache {
 public:
  struct Row {
    TokenId token;
    std::int32_t parent;
  };

  explicit ToyCache(int capacity) : capacity_(capacity) {}
  int capacity() const override { return capacity_; }
  int committed() const override { return static_cast<int>(text.size()); }
  int staged() const override { return static_cast<int>(rows.size()); }
  void keep(std::span<const std::int32_t> path) override {
    std::int32_t previous = -1;
    for (std::int32_t row : path) {
      SPECMOE_CHECK(row < staged() && rows[row].parent == previous, "toy cache: kept rows are not a path");
      text.push_back(rows[row].token);
      previous = row;
    }
    rows.clear();
  }
  void truncate(int length) override {
    SPECMOE_CHECK(length <= committed(), "toy cache: cannot cut ", committed(), " rows to ", length);
    text.resize(length);
    rows.clear();
  }

  std::vector<TokenId> text_of(std::int32_t row) const {
    std::vector<TokenId> path;
    for (; row >= 0; row = rows[row].parent) path.push_back(rows[row].token);
    std::vector<TokenId> all = text;
    all.insert(all.end(), path.rbegin(), path.rend());
    return all;
  }

  std::vector<TokenId> text;
  std::vector<Row> rows;

 private:
  int capacity_;
};

/// Each one's logits are a hash of its number and of the number that comes as a hidden row.
class ToyMedusaHeads final : public MedusaHeads {
 public:
  explicit ToyMedusaHeads(const ToyOptions& options) : options_(options) { options_.own_seed = 97; }

  int count() const override { return 3; }
  void forward(int head, kernels::Rows<const float> rows, ForwardResult& result) override {
    SPECMOE_CHECK(rows.cols == 1, "toy heads: ", rows.cols, " values a row");
    result.vocab = options_.vocab;
    result.logits.clear();
    result.argmax.clear();
    for (std::int64_t t = 0; t < rows.rows; ++t) {
      const std::uint64_t hash =
          mix(mix(17, static_cast<std::uint64_t>(head)), std::bit_cast<std::uint32_t>(*rows.row(t)));
      const auto token = static_cast<TokenId>(hash >> 34);
      add_toy_row(options_, {&token, 1}, result);
    }
  }

 private:
  ToyOptions options_;
};

class ToyModel final : public LanguageModel {
 public:
  explicit ToyModel(const ToyOptions& options) : options_(options) {
    info_.name = "toy";
    info_.path = options.path;
    info_.architecture = "toy";
    info_.dtype = "float32";
    info_.device = "cpu";
    info_.instruction_set = "none";
    info_.vocab_size = options.vocab;
    info_.mask_token = options.vocab - 1;
    info_.block_size = options.block_size;
    info_.max_positions = options.max_positions;
    info_.hidden_size = 1;
    info_.layers = options.layers;
    info_.moe_layers = options.experts > 0 ? options.layers : 0;
    info_.experts = options.experts;
    info_.experts_per_token = options.experts_per_token;
  }

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> /*text*/) const override {
    return std::make_unique<ToyCache>(capacity);
  }

  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override {
    result.vocab = options_.vocab;
    result.row_begin.assign(1, 0);
    result.logits.clear();
    result.argmax.clear();
    result.tapped.clear();
    std::vector<std::vector<TokenId>> texts;
    for (const RowBlock& block : blocks) {
      auto& cache = static_cast<ToyCache&>(*block.cache);
      const int rows = static_cast<int>(block.tokens.size());
      SPECMOE_CHECK(cache.committed() + cache.staged() + rows <= cache.capacity(), "toy cache: ", cache.capacity(),
                    " rows are too few");
      const std::size_t features = block.features.size() / block.tokens.size();
      const int own = options_.head_taps > 0 && options_.block_size == 0 ? 1 : 0;
      const bool fits = static_cast<int>(features) == own || static_cast<int>(features) == options_.head_taps;
      SPECMOE_CHECK(fits, "toy model: ", block.features.size(), " features for ", rows, " rows");
      for (int i = 0; i < rows; ++i) {
        SPECMOE_CHECK(block.parents[i] < cache.staged(), "toy model: parent after child");
        const TokenId token = with_features(block.tokens[i], block.features.subspan(i * features, features));
        cache.rows.push_back({token, block.parents[i]});
        texts.push_back(cache.text_of(cache.staged() - 1));
        for (const int boundary : result.taps) result.tapped.push_back(hidden_value(boundary, texts.back()));
        if (block.logits == LogitsWanted::kAll || (block.logits == LogitsWanted::kLast && i + 1 == rows)) {
          add_toy_row(options_, texts.back(), result);
        }
      }
      result.row_begin.push_back(static_cast<std::int32_t>(result.argmax.size()));
    }
    route(texts, result);
  }

  /// A model that often agrees.
  std::shared_ptr<LanguageModel> partial(const ModelPart&) const override {
    ToyOptions options = options_;
    options.own_seed = 99;
    options.agreement = 0.75;
    return make_toy_model(options);
  }

  DraftHead draft_head(const std::string& path) const override {
    const std::vector<int> taps = path == "wide" ? std::vector<int>{0, 1} : std::vector<int>{info_.layers + 1};
    ToyOptions options = options_;
    options.own_seed = 98;
    options.head_taps = static_cast<int>(taps.size());
    options.block_size = path == "block" ? 4 : 0;
    return {make_toy_model(options), taps, info_.layers};
  }

  std::shared_ptr<MedusaHeads> medusa_heads(const std::string& /*path*/) const override {
    return std::make_shared<ToyMedusaHeads>(options_);
  }

 private:
  static TokenId with_features(TokenId token, std::span<const float> features) {
    if (features.empty()) return token;
    std::uint64_t hash = mix(11, static_cast<std::uint64_t>(token));
    for (const float feature : features) hash = mix(hash, std::bit_cast<std::uint32_t>(feature));
    return static_cast<TokenId>(hash >> 34);
  }

  static float hidden_value(int boundary, const std::vector<TokenId>& text) {
    std::uint64_t hash = static_cast<std::uint64_t>(boundary) + 13;
    for (const TokenId token : text) hash = mix(hash, static_cast<std::uint64_t>(token) + 1);
    return static_cast<float>(hash >> 44);
  }

  void route(const std::vector<std::vector<TokenId>>& texts, ForwardResult& result) const {
    result.moe_layers = options_.layers;
    result.moe_rows = static_cast<int>(texts.size());
    result.experts.clear();
    for (int layer = 0; layer < options_.layers; ++layer) {
      for (const auto& text : texts) {
        const std::uint64_t first = mix(mix(7, layer), text.back()) % options_.experts;
        for (int k = 0; k < options_.experts_per_token; ++k) {
          result.experts.push_back(static_cast<std::int32_t>((first + k) % options_.experts));
        }
      }
    }
  }

  ToyOptions options_;
  ModelInfo info_;
};

}  // namespace

std::vector<float> toy_logits(const ToyOptions& options, std::span<const TokenId> text) {
  std::uint64_t hash = 0;
  for (int i = 0; i < options.order && i < static_cast<int>(text.size()); ++i) {
    hash = mix(hash, static_cast<std::uint64_t>(text[text.size() - 1 - i]) + 1);
  }
  const PhiloxUniforms common(options.seed, hash, 0);
  const PhiloxUniforms own(options.own_seed, hash, 1);
  std::vector<float> logits(options.vocab);
  for (int x = 0; x < options.vocab; ++x) {
    const auto normal = [&](const PhiloxUniforms& uniforms) {
      const double u = uniforms.value({x, Purpose::kPlugin, 0});
      const double v = uniforms.value({x, Purpose::kPlugin, 1});
      return std::sqrt(-2.0 * std::log(1.0 - u)) * std::cos(6.283185307179586 * v);
    };
    logits[x] = static_cast<float>(options.sharpness *
                                   (options.agreement * normal(common) + (1.0 - options.agreement) * normal(own)));
  }
  return logits;
}

std::vector<double> toy_probs(const ToyOptions& options, std::span<const TokenId> text) {
  std::vector<double> row;
  double sum = 0;
  for (const float logit : toy_logits(options, text)) sum += row.emplace_back(std::exp(logit));
  for (double& value : row) value /= sum;
  return row;
}

std::vector<TokenId> toy_greedy(const ToyOptions& options, std::vector<TokenId> prompt, int new_tokens) {
  std::vector<TokenId> out;
  for (int i = 0; i < new_tokens; ++i) {
    const std::vector<float> logits = toy_logits(options, prompt);
    out.push_back(static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    prompt.push_back(out.back());
  }
  return out;
}

std::shared_ptr<LanguageModel> make_toy_model(const ToyOptions& options) { return std::make_shared<ToyModel>(options); }

}  // namespace specmoe::test
