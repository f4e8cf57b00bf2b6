// Whole chunks of a prompt through DenseLinear, beside the same model without it: the families' small checkpoints.
#include "core/nn/checkpoint.h"
#include "core/nn/cuda/dense_products.h"
#include "core/nn/cuda/device_transformer.h"
#include "core/nn/cuda/device_weights.h"
#include "core/nn/model_family.h"
#include "tests/cuda/device_test.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::cuda {
namespace {

using kernels::DType;
using kernels::cuda::DenseLinear;
using testing::Fixture;
using testing::load_fixture;

constexpr std::size_t kChunk = 4;

class DensePrefillTest : public ::testing::TestWithParam<std::string> {
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
  std::unique_ptr<DeviceTransformer> load(DType dtype, int dense_rows) const {
    const ModelSpec spec = read_spec(fixture_.folder);
    const Checkpoint checkpoint(fixture_.folder);
    const ModelTensors tensors = map_tensors(spec, checkpoint);
    kernels::ThreadPool pool(1);
    const Weights packed = pack_weights(spec, tensors, dtype, kernels::Backend::kScalar, pool);
    auto weights = std::make_shared<const DeviceWeights>(spec, packed, DType::kFloat32, 0);
    ModelInfo info = describe_model(spec, dtype, DType::kFloat32, tensors.tied);
    return std::make_unique<DeviceTransformer>(spec, std::move(weights), std::move(info), 0, DType::kFloat32,
                                               dense_rows);
  }
  /// Adds ids [first, first + count) without logits.
  void read(DeviceTransformer& model, KVCache& cache, std::size_t first, std::size_t count) const {
    std::vector<std::int32_t> chain(count), path(count);
    std::iota(chain.begin(), chain.end(), -1);
    std::iota(path.begin(), path.end(), 0);
    ForwardResult result;
    const RowBlock block{&cache, ids(first, count), chain, LogitsWanted::kNone};
    model.forward({&block, 1}, result);
    cache.keep(path);
  }
  /// The logits behind two chunks that were read.
  std::vector<float> after_chunks(DeviceTransformer& model, std::size_t rows_at_once = kChunk) const {
    const auto cache = model.new_cache(64, std::nullopt);
    for (std::size_t at = 0; at < 2 * kChunk; at += kChunk) read(model, *cache, at, kChunk);
    std::vector<float> logits;
    for (std::size_t at = 2 * kChunk; at < 3 * kChunk; at += rows_at_once) {
      const ForwardResult result = testing::append(model, *cache, ids(at, rows_at_once));
      logits.insert(logits.end(), result.logits.begin(), result.logits.end());
    }
    return logits;
  }
  Fixture fixture_ = load_fixture(GetParam());
};

TEST_P(DensePrefillTest, AgreesWithTransformersAndTheOtherProduct) {
  const auto fast = load(DType::kFloat32, kChunk), plain = load(DType::kFloat32, 0);
  const std::vector<float> logits = after_chunks(*fast), others = after_chunks(*plain);
  const auto first = fixture_.logits.begin() + static_cast<std::ptrdiff_t>(2 * kChunk * fixture_.vocab);
  double largest = 1.0;
  for (const float logit : fixture_.logits) largest = std::max(largest, std::abs(static_cast<double>(logit)));
  ASSERT_EQ(logits.size(), kChunk * static_cast<std::size_t>(fixture_.vocab));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    ASSERT_NEAR(logits[i], first[static_cast<std::ptrdiff_t>(i)], 1e-4 * largest) << "logit " << i;
  }
  EXPECT_FALSE(testing::same_bits(logits, others)) << "no product was dense";
}

TEST_P(DensePrefillTest, BitsDependOnThePlaceInThePromptAlone) {
  const auto fast = load(DType::kBFloat16, kChunk), plain = load(DType::kBFloat16, 0);
  const std::vector<float> logits = after_chunks(*fast);
  EXPECT_TRUE(testing::same_bits(after_chunks(*fast, 1), logits));
  const auto cache = plain->new_cache(64, std::nullopt), same = fast->new_cache(64, std::nullopt);
  read(*plain, *cache, 0, 2);
  read(*fast, *same, 0, 2);
  EXPECT_TRUE(testing::same_bits(testing::append(*fast, *same, ids(2, kChunk)).logits,
                                 testing::append(*plain, *cache, ids(2, kChunk)).logits))
      << "rows that are no chunk";
}

TEST_P(DensePrefillTest, EveryProductOfAChunkIsDenseAndCounted) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const auto model = load(dtype, kChunk);
    const auto products = dense_products(model->device_model());
    const auto planned = dense_products(model->spec(), dtype);
    EXPECT_EQ(DenseLinear::device_bytes(256, planned), DenseLinear::device_bytes(256, products));
    ASSERT_EQ(planned.size(), products.size());
    for (std::size_t i = 0; i < products.size(); ++i) {
      EXPECT_EQ(planned[i].rows, products[i].rows) << i;
      EXPECT_EQ(planned[i].cols, products[i].cols) << i;
      EXPECT_EQ(planned[i].panel_bytes, products[i].panel_bytes) << i;
    }
#ifdef SPECMOE_CUDA_EMULATION
    const auto cache = model->new_cache(64, std::nullopt);
    const std::uint64_t before = cuda_emulation::dense_product_count();
    read(*model, *cache, 0, kChunk);
    EXPECT_EQ(cuda_emulation::dense_product_count() - before, products.size());
#endif
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DensePrefillTest,
                         ::testing::Values("deepseek_v2_a", "deepseek_v3_a", "gemma3_text_a", "llama4_text_scout",
                                           "llama_bias", "qwen2_moe_a"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn::cuda
