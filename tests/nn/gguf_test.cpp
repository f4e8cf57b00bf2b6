// GGUF files written by gguf-py: every value of every type, and whole models against transformers.
#include "core/nn/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/nn/checkpoint.h"
#include "core/nn/gguf_model.h"
#include "core/nn/model_family.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

const std::string kFolder = SPECMOE_TEST_DATA "/golden/gguf/";

Fixture gguf_fixture(const std::string& name) { return load_fixture("../gguf/" + name); }

std::vector<std::string> gguf_models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    const std::string name = entry.path().filename().string();
    if (name != "quants") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Gguf, ExpandsEveryTypeLikeGgufPy) {
  const GgufFile file(kFolder + "quants/model.gguf");
  const SafetensorsFile expected(kFolder + "quants/expected.safetensors");
  ASSERT_EQ(expected.tensors().size(), 12U);
  for (const Tensor& golden : expected.tensors()) {
    const GgufTensor* tensor = file.tensor(golden.name);
    ASSERT_NE(tensor, nullptr) << golden.name;
    ASSERT_EQ(tensor->type->name, golden.name);
    ASSERT_EQ(tensor->shape, golden.shape);
    std::vector<float> want((golden.end - golden.begin) / sizeof(float));
    std::memcpy(want.data(), golden.data, golden.end - golden.begin);
    std::vector<float> got(want.size());
    const auto cols = static_cast<std::size_t>(tensor->shape.back());
    const std::size_t row_bytes = tensor->bytes / (got.size() / cols);
    for (std::size_t row = 0; row < got.size() / cols; ++row) {
      expand_row(*tensor->type, tensor->data + row * row_bytes, tensor->shape.back(), got.data() + row * cols);
    }
    EXPECT_TRUE(same_bits(got, want)) << golden.name;
    EXPECT_GT(std::count_if(want.begin(), want.end(), [](float value) { return value != 0; }), 500) << golden.name;
  }
}

class GgufParity : public ::testing::TestWithParam<std::string> {
 protected:
  GgufParity() : fixture_(gguf_fixture(GetParam())), model_(load(fixture_.folder)), cache_(model_->new_cache(128)) {}

  void append_and_compare(std::size_t count) {
    const auto vocab = static_cast<std::size_t>(fixture_.vocab);
    const auto first = static_cast<std::size_t>(cache_->committed());
    const auto ids = std::span<const TokenId>(fixture_.ids).subspan(first, count);
    const ForwardResult result = append(*model_, *cache_, ids);
    float most = 1;
    for (const float value : fixture_.logits) most = std::max(most, std::abs(value));
    for (std::size_t i = 0; i < result.logits.size(); ++i) {
      ASSERT_NEAR(result.logits[i], fixture_.logits[first * vocab + i], 1e-4 * most)
          << "position " << first + i / vocab;
    }
  }

  Fixture fixture_;
  std::shared_ptr<LanguageModel> model_;
  std::unique_ptr<KVCache> cache_;
};

TEST_P(GgufParity, WholeAndInPieces) {
  append_and_compare(fixture_.ids.size());
  cache_->truncate(0);
  for (const std::size_t count : {7, 13, 1, 1, 15}) append_and_compare(count);
}

TEST_P(GgufParity, RouterChoices) { EXPECT_EQ(append(*model_, *cache_, fixture_.ids).experts, fixture_.routers); }

TEST_P(GgufParity, GreedyText) {
  std::vector<TokenId> text(fixture_.greedy.begin(), fixture_.greedy.begin() + fixture_.prompt);
  TokenId next = append(*model_, *cache_, text).argmax.back();
  while (text.size() < fixture_.greedy.size()) {
    text.push_back(next);
    next = append(*model_, *cache_, {&text.back(), 1}).argmax.back();
  }
  EXPECT_EQ(text, fixture_.greedy);
}

/// The file's rows as bfloat16 are what rounding the expanded float32 rows gives.
TEST_P(GgufParity, LoadsAsBfloat16) {
  const auto rounded = load(fixture_.folder, kernels::DType::kBFloat16);
  EXPECT_EQ(rounded->info().dtype, "bfloat16");
  EXPECT_LT(rounded->info().weight_bytes, model_->info().weight_bytes * 6 / 10);
  const auto cache = rounded->new_cache(64);
  const ForwardResult result = append(*rounded, *cache, fixture_.ids);
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < result.logits.size(); ++i) {
    error += std::pow(result.logits[i] - fixture_.logits[i], 2);
    size += std::pow(fixture_.logits[i], 2);
  }
  EXPECT_LT(std::sqrt(error / size), 0.05);
}

INSTANTIATE_TEST_SUITE_P(Models, GgufParity, ::testing::ValuesIn(gguf_models()),
                         [](const auto& info) { return info.param; });

TEST(Gguf, AFileAndItsFolderAreTheSameModel) {
  const ModelSpec by_folder = read_spec(kFolder + "mixtral");
  const ModelSpec by_file = read_spec(kFolder + "mixtral/model.gguf");
  EXPECT_EQ(by_folder.name, by_file.name);
  EXPECT_EQ(by_file.model_type, "mixtral");
  EXPECT_EQ(by_file.stop_tokens, std::vector<TokenId>{2});
  EXPECT_EQ(gguf_storage(GgufFile(kFolder + "llama/model.gguf")), "Q4_1 x 14, F32 x 5, Q8_0 x 1");
}

/// A GGUF file made by hand.
class Writer {
 public:
  template <class T>
  Writer& number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Writer& text(const std::string& text) {
    number<std::uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  Writer& head(std::uint64_t tensors, std::uint64_t pairs, std::uint32_t version = 3) {
    bytes_ += "GGUF";
    return number(version).number(tensors).number(pairs);
  }
  Writer& tensor(const std::string& name, std::vector<std::uint64_t> sizes, std::uint32_t type, std::uint64_t offset) {
    text(name).number(static_cast<std::uint32_t>(sizes.size()));
    for (const std::uint64_t size : sizes) number(size);
    return number(type).number(offset);
  }
  Writer& pad(std::size_t data) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32 + data);
    return *this;
  }
  std::string error() const {
    try {
      GgufContents::parse(std::as_bytes(std::span(bytes_)), "F");
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    return "";
  }

 private:
  std::string bytes_;
};

TEST(GgufBadInput, EachIsRefusedInOneLine) {
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  const auto expect = [](const Writer& file, const std::string& wanted) {
    EXPECT_NE(file.error().find(wanted), std::string::npos) << "wanted: " << wanted << "\ngot: " << file.error();
  };
  expect(Writer(), "too few");
  expect(Writer().number<std::uint32_t>(0x47475546).pad(40), "not a GGUF file");
  expect(Writer().head(0, 0, 1), "version 1");
  expect(Writer().head(0, 0, 0x03000000), "big-endian");
  expect(Writer().head(kHuge, 0), "promises 18446744073709551615 tensors");
  expect(Writer().head(0, kHuge), "metadata values");
  expect(Writer().head(0, 1).number(kHuge).pad(64), "key of 18446744073709551615 bytes");
  expect(Writer().head(0, 1).text("a\nb").number<std::uint32_t>(4).pad(8), "'a?b' is not plain ASCII");
  expect(Writer().head(0, 1).text("a").number<std::uint32_t>(13).pad(8), "unknown type 13");
  expect(Writer().head(0, 1).text("a").number<std::uint32_t>(7).number<std::uint8_t>(2).pad(8), "true or false");
  expect(Writer().head(0, 1).text("a").number<std::uint32_t>(8).number(kHuge), "a string of");
  expect(Writer().head(0, 1).text("a").number<std::uint32_t>(9).number<std::uint32_t>(8).number(kHuge), "strings");
  expect(Writer().head(0, 1).text("a").number<std::uint32_t>(9).number<std::uint32_t>(9).pad(32), "list of values");
  expect(Writer().head(0, 1).text("a").number<std::uint32_t>(10).number(kHuge), "out of range");
  expect(Writer()
             .head(0, 2)
             .text("a")
             .number<std::uint32_t>(4)
             .number<std::uint32_t>(1)
             .text("a")
             .number<std::uint32_t>(4)
             .number<std::uint32_t>(1),
         "key a is there twice");
  expect(Writer().head(1, 0).tensor("t", {}, 0, 0).pad(32), "0 dimensions");
  expect(Writer().head(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).pad(32), "5 dimensions");
  expect(Writer().head(1, 0).tensor("t", {0}, 0, 0).pad(32), "a dimension of 0");
  expect(Writer().head(1, 0).tensor("t", {kHuge}, 0, 0).pad(32), "a dimension of");
  expect(Writer().head(1, 0).tensor("t", {1ULL << 40, 1ULL << 40}, 0, 0).pad(32), "larger than any memory");
  expect(Writer().head(1, 0).tensor("t", {1ULL << 62}, 0, 0).pad(32), "larger than any memory");
  expect(Writer().head(1, 0).tensor("t", {4}, 23, 0).pad(32), "IQ4_XS (23), which is not supported; known: F32, ");
  expect(Writer().head(1, 0).tensor("t", {4}, 77, 0).pad(32), "unknown (77)");
  expect(Writer().head(1, 0).tensor("t", {48}, 8, 0).pad(64), "rows of 48 elements, Q8_0 needs a multiple of 32");
  expect(Writer().head(1, 0).tensor("t", {4}, 0, 4).pad(32), "a multiple of 32");
  expect(Writer().head(1, 0).tensor("t", {16}, 0, 0).pad(32), "passes the end");
  expect(Writer().head(1, 0).tensor("t", {4}, 0, kHuge - 31).pad(32), "passes the end");
  expect(Writer().head(2, 0).tensor("t", {16}, 0, 0).tensor("u", {4}, 0, 32).pad(64), "t and u overlap");
  expect(Writer().head(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).pad(64), "tensor t is there twice");
  expect(Writer().head(0, 1).text("general.alignment").number<std::uint32_t>(4).number<std::uint32_t>(24).pad(8),
         "power of two");
}

TEST(GgufBadInput, TruncatedAnywhere) {
  const std::string whole = read_file(kFolder + "llama/model.gguf");
  ASSERT_NO_THROW(GgufContents::parse(std::as_bytes(std::span(whole)), "F"));
  for (std::size_t size = 0; size < whole.size(); size += 1 + size / 50) {
    const std::string part = whole.substr(0, size);
    EXPECT_THROW(GgufContents::parse(std::as_bytes(std::span(part)), "F"), Error) << size;
  }
}

/// Whole files that are well-formed but no model we know, by changing bytes of a good one.
TEST(GgufBadInput, MetadataThatDoesNotFit) {
  const FolderCopy copy(kFolder + "llama");
  const std::string good = read_file(copy / "model.gguf");
  const auto error_with = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const std::size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    bytes.replace(at, from.size(), to);
    write_file(copy / "model.gguf", bytes);
    return load_error(copy.path());
  };
  EXPECT_NE(error_with("general.architecture", "general.architectuRe").find("no general.architecture"),
            std::string::npos);
  EXPECT_NE(error_with("llama.block_count", "llama.block_coUnt").find("metadata has no llama.block_count"),
            std::string::npos);
  EXPECT_NE(error_with("blk.1.attn_q.weight", "blk.1.attn_Q.weight").find("missing blk.1.attn_q.weight"),
            std::string::npos);
  EXPECT_NE(error_with("token_embd.weight", "token_embD.weight").find("no tensor token_embd.weight"),
            std::string::npos);
  std::filesystem::copy(kFolder + "llama/model.gguf", copy / "second.gguf");
  EXPECT_NE(load_error(copy.path()).find("holds 2 GGUF files"), std::string::npos);
}

/// A model of tests/golden/gguf after changing bytes of its file; the error of loading it.
std::string error_with(const std::string& model, const std::string& from, const std::string& to) {
  const FolderCopy copy(kFolder + model);
  std::string bytes = read_file(copy / "model.gguf");
  const std::size_t at = bytes.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  bytes.replace(at, to.size(), to);
  write_file(copy / "model.gguf", bytes);
  return load_error(copy.path());
}

/// A key with its type (uint32) and value.
std::string pair(const std::string& key, std::uint32_t value) {
  const std::uint32_t type = 4;
  std::string bytes = key + std::string(8, '\0');
  std::memcpy(bytes.data() + key.size(), &type, 4);
  std::memcpy(bytes.data() + key.size() + 4, &value, 4);
  return bytes;
}

TEST(GgufBadInput, ArchitecturesThatDoNotFit) {
  const auto expect = [](const std::string& error, const std::string& wanted) {
    EXPECT_NE(error.find(wanted), std::string::npos) << "wanted: " << wanted << "\ngot: " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  };
  const std::string v3 = "deepseek_v3";
  expect(error_with(v3, "expert_gating_func", pair("expert_gating_func", 7)),
         "expert_gating_func = 7 is not supported");
  expect(error_with(v3, "expert_gating_func", pair("expert_gating_func", 1)), "does not renormalise");
  expect(error_with(v3, "expert_group_count", pair("expert_group_count", 3)), "must divide n_routed_experts");
  expect(error_with(v3, "kv_lora_rank", "kv_lora_ranK"), "metadata has no deepseek2.attention.kv_lora_rank");
  expect(error_with(v3, "rope.dimension_count", pair("rope.dimension_count", 48)), "below the keys' width 48");
  expect(error_with(v3, "rope.dimension_count", pair("rope.dimension_count", 0)), "must be above 0");
  expect(error_with(v3, "blk.1.attn_v_b.weight", "blk.1.attn_v_B.weight"), "has no blk.1.attn_v_b.weight beside it");
  expect(error_with(v3, "blk.1.exp_probs_b.bias", "blk.1.exp_probs_B.bias"), "missing blk.1.exp_probs_b.bias");
  expect(error_with("gpt_oss", "expert_feed_forward_length", "expert_feed_forward_lengtH"), "metadata has no gpt-oss.");
  expect(error_with("gpt_oss", "blk.0.attn_sinks.weight", "blk.0.attn_sinkS.weight"),
         "missing blk.0.attn_sinks.weight");
  expect(error_with("gpt_oss", "blk.2.ffn_up_exps.bias", "blk.2.ffn_up_exps.biaS"), "missing blk.2.ffn_up_exps.0.bias");
  expect(error_with("llama4", "interleave_moe_layer_step", "interleave_moe_layer_steP"), "metadata has no llama4.");
  expect(error_with("dots1", "expert_gating_func", pair("expert_gating_func", 1)), "expected 2");
  for (const std::uint32_t turning : {0U, 33U}) {
    expect(error_with("glm4_moe", "rope.dimension_count", pair("rope.dimension_count", turning)),
           "must be above 0 and at most the heads' width 32");
  }
  expect(error_with("phimoe", "rope_factors_short.weight", "rope_factors_shorT.weight"), "expected both or none");
}

}  // namespace
}  // namespace specmoe::nn::testing
