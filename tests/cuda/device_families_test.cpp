// Every family that the CPU has, on a device: the small checkpoints of tests/golden/models.
#include "core/engine.h"
#include "tests/cuda/device_test.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::cuda {
namespace {

using testing::Fixture;
using testing::load_fixture;

std::shared_ptr<LanguageModel> load_on(const std::string& device, const std::string& folder, kernels::DType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  options.device = device;
  options.threads = 1;
  return load_model(folder, options);
}

class DeviceFamilyTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (kernels::cuda::device_count() == 0) GTEST_SKIP() << "this machine has no CUDA device";
#ifdef SPECMOE_CUDA_EMULATION
    cuda_emulation::set_schedule(1);
#endif
  }
  std::span<const TokenId> ids(std::size_t first, std::size_t count) const {
    return std::span<const TokenId>(fixture_.ids).subspan(first, count);
  }
  Fixture fixture_ = load_fixture(GetParam());
};

// Long enough for the fixtures' windows and chunks of positions to leave keys out.
TEST_P(DeviceFamilyTest, AgreesWithTransformersAndTheCpu) {
  constexpr std::size_t kRows = 20;
  const auto run = [&](const std::string& device) {
    const auto model = load_on(device, fixture_.folder, kernels::DType::kFloat32);
    EXPECT_EQ(model->info().device, device);
    const auto cache = model->new_cache(128);
    return testing::append(*model, *cache, ids(0, kRows));
  };
  const ForwardResult result = run("cuda:0");
  double largest = 1.0;
  for (const float logit : fixture_.logits) largest = std::max(largest, std::abs(static_cast<double>(logit)));
  ASSERT_EQ(result.logits.size(), kRows * static_cast<std::size_t>(fixture_.vocab));
  for (std::size_t i = 0; i < result.logits.size(); ++i) {
    ASSERT_NEAR(result.logits[i], fixture_.logits[i], 1e-4 * largest)
        << "row " << i / static_cast<std::size_t>(fixture_.vocab);
  }
  const ForwardResult expected = run("cpu");
  EXPECT_EQ(result.experts, expected.experts);
  EXPECT_EQ(result.argmax, expected.argmax);
}

class DeviceFamilyBitsTest : public DeviceFamilyTest {};

// One token at a time; or together, as branches of a tree beside another sequence, behind rows that were moved: a
// text's logits have the same bits.
TEST_P(DeviceFamilyBitsTest, BitsDoNotDependOnHowATextIsComputed) {
  constexpr std::size_t kPrefix = 4, kText = 8;
  const auto model = load_on("cuda", fixture_.folder, kernels::DType::kBFloat16);
  const auto vocab = static_cast<std::size_t>(fixture_.vocab);
  std::vector<float> alone;
  const auto plain = model->new_cache(128);
  for (std::size_t i = 0; i < kText; ++i) {
    const ForwardResult row = testing::append(*model, *plain, ids(i, 1));
    alone.insert(alone.end(), row.logits.begin(), row.logits.end());
  }
  const auto expect_rows = [&](std::size_t first, std::span<const float> logits) {
    EXPECT_TRUE(testing::same_bits(logits, std::span<const float>(alone).subspan(first * vocab, logits.size())))
        << "from row " << first << " on";
  };
  const auto cache = model->new_cache(128);
  expect_rows(0, testing::append(*model, *cache, ids(0, kPrefix)).logits);

  const auto other = model->new_cache(128);
  const std::vector<TokenId> wrong = {7, 8, 9};
  const std::vector<TokenId> tokens = {wrong[0], fixture_.ids[kPrefix], wrong[1], fixture_.ids[kPrefix + 1],
                                       fixture_.ids[kPrefix + 2]};
  const std::vector<std::int32_t> parents = {-1, -1, 0, 1, 3}, chain = {-1, 0, 1};
  const RowBlock blocks[] = {{other.get(), wrong, chain, LogitsWanted::kAll},
                             {cache.get(), tokens, parents, LogitsWanted::kAll}};
  ForwardResult result;
  model->forward(blocks, result);
  const std::span<const float> tree = std::span<const float>(result.logits).subspan(wrong.size() * vocab);
  expect_rows(kPrefix, tree.subspan(vocab, vocab));
  expect_rows(kPrefix + 1, tree.subspan(3 * vocab, 2 * vocab));
  cache->keep(std::vector<std::int32_t>{1, 3, 4});
  expect_rows(kText - 1, testing::append(*model, *cache, ids(kText - 1, 1)).logits);
}

class DeviceFamilyStepTest : public DeviceFamilyTest {};

TEST_P(DeviceFamilyStepTest, WholeStepsWriteTheTextOfTransformers) {
  constexpr int kTokens = 4;
  Request request;
  request.prompt.assign(fixture_.greedy.begin(), fixture_.greedy.begin() + fixture_.prompt);
  request.max_new_tokens = kTokens;
  Engine engine(load_on("cuda", fixture_.folder, kernels::DType::kFloat32), {"ngram", "chain(gamma=2)"});
  EXPECT_EQ(engine.step_leader(), "whole steps on cuda:0");
  const RequestRecord record = engine.generate({&request, 1})[0];
  EXPECT_TRUE(record.whole_steps);
  const auto first = fixture_.greedy.begin() + fixture_.prompt;
  EXPECT_EQ(record.tokens, std::vector<TokenId>(first, first + kTokens));
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceFamilyStepTest,
                         ::testing::Values("deepseek_v3_a", "gemma3_text_a", "gpt_oss_a", "llama4_text_scout",
                                           "llama_longrope_long", "phimoe_a"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Models, DeviceFamilyTest, ::testing::ValuesIn(testing::fixture_names()),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Models, DeviceFamilyBitsTest,
                         ::testing::Values("deepseek_v2_b", "deepseek_v3_a", "gemma3_text_a", "glm4_moe_b", "gpt_oss_a",
                                           "granitemoe_a", "hunyuan_v1_moe_b", "llama4_text_scout", "llama_bias",
                                           "llama_longrope_long", "minimax_m2_a", "mixtral_b", "olmoe_b", "phimoe_b",
                                           "qwen2_moe_a", "qwen3_moe_b"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn::cuda
