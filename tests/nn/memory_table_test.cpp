// What is predicted from config.json alone is what loading takes.
#include <algorithm>

#include "core/nn/memory_table.h"

#include "core/nn/checkpoint.h"
#include "core/nn/draft_head.h"
#include "core/nn/kv_storage.h"
#include "core/nn/model_family.h"
#include "core/nn/tensor_map.h"
#include "core/nn/weights.h"
#include "core/nn/workspace.h"
#include "tests/nn/head_fixture.h"

namespace specmoe::nn::testing {
namespace {

std::int64_t packed(const kernels::PackedMatrix& matrix) {
  return matrix.rows() == 0 ? 0 : static_cast<std::int64_t>(matrix.bytes());
}
std::int64_t floats(const std::vector<float>& values) {
  return static_cast<std::int64_t>(values.size() * sizeof(float));
}

std::int64_t bytes_of(const Weights& weights) {
  std::int64_t bytes = static_cast<std::int64_t>(weights.embedding.size()) + packed(weights.head) +
                       floats(weights.head_bias) + floats(weights.final_norm.weight) + floats(weights.final_norm.bias);
  for (const LayerWeights& layer : weights.layers) {
    const FfnWeights& ffn = layer.ffn;
    for (const auto* matrix : {&layer.qkv, &layer.query_up, &layer.kv_up, &layer.output, &ffn.router,
                               &ffn.shared_gate_up, &ffn.shared_down, &ffn.shared_scale}) {
      bytes += packed(*matrix);
    }
    for (const auto* matrices : {&ffn.gate_up, &ffn.down}) {
      for (const kernels::PackedMatrix& matrix : *matrices) bytes += packed(matrix);
    }
    for (const auto* values :
         {&layer.qkv_bias, &layer.query_down_norm, &layer.kv_down_norm, &layer.query_norm, &layer.key_norm,
          &layer.sinks, &layer.output_bias, &ffn.router_bias, &ffn.choice_bias, &ffn.up_bias, &ffn.down_bias}) {
      bytes += floats(*values);
    }
    for (const auto* norm : {&layer.attention_norm, &layer.ffn_norm, &layer.attention_out_norm, &layer.ffn_out_norm}) {
      bytes += floats(norm->weight) + floats(norm->bias);
    }
  }
  return bytes;
}

/// Weights in a checkpoint: two to a byte in blocks of mxfp4; not the scales of blocks, nor layers that are left out.
std::int64_t elements(const ModelSpec& spec, const Checkpoint& checkpoint) {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const auto begins_name = [&name](const std::string& prefix) { return name.starts_with(prefix); };
    if (std::any_of(spec.names.ignored.begin(), spec.names.ignored.end(), begins_name)) continue;
    if (name.ends_with("_scales") || name.ends_with("_scale_inv")) continue;
    std::int64_t size = name.ends_with("_blocks") ? 2 : 1;
    for (const std::int64_t extent : tensor.shape) size *= extent;
    count += size;
  }
  return count;
}

class Memory : public ::testing::TestWithParam<std::string> {
 protected:
  Fixture fixture_ = load_fixture(GetParam());
  ModelSpec spec_ = read_spec(fixture_.folder);
};

TEST_P(Memory, WeightsTakeWhatWasPredicted) {
  const Checkpoint checkpoint(fixture_.folder);
  const ModelTensors tensors = map_tensors(spec_, checkpoint);
  kernels::ThreadPool pool(1);
  for (const auto dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
    const Weights weights = pack_weights(spec_, tensors, dtype, kernels::Backend::kScalar, pool);
    EXPECT_EQ(model_size(spec_, dtype, spec_.tied_embeddings).weight_bytes, bytes_of(weights));
  }
}

TEST_P(Memory, ParametersAreThoseOfTheFile) {
  EXPECT_EQ(load(fixture_.folder)->info().parameters, elements(spec_, Checkpoint(fixture_.folder)));
}

/// What a head borrows from its target is not its own.
TEST(HeadMemory, ParametersAreThoseOfTheFile) {
  std::vector<std::string> names = HeadFixture::kNames;
  names.insert(names.end(), BlockFixture::kNames.begin(), BlockFixture::kNames.end());
  for (const std::string& name : names) {
    const Checkpoint checkpoint(kHeads + name);
    const ModelSpec target =
        read_spec(name.starts_with("dflash") ? SPECMOE_TEST_DATA "/golden/models/mixtral_a" : HeadFixture(name).target);
    const ModelSpec spec = read_draft_head(checkpoint, target).model;
    EXPECT_EQ(model_size(spec, kernels::DType::kFloat32, spec.tied_embeddings).parameters, elements(spec, checkpoint))
        << name;
  }
}

TEST_P(Memory, TableAddsUp) {
  const MemoryUse use{kernels::DType::kBFloat16, kernels::DType::kFloat32, 128, 16, 2};
  const MemoryTable table = memory_table(spec_, use);
  const ModelSize size = model_size(spec_, use.dtype, spec_.tied_embeddings);
  std::int64_t cache = 0;
  std::int64_t workspaces = 0;
  for (const MemoryLine& line : table.lines) {
    EXPECT_GT(line.bytes, 0) << line.part;
    if (line.part == "KV cache") cache = line.bytes;
    if (line.part == "workspaces") workspaces = line.bytes;
  }
  EXPECT_EQ(cache, 128 * load(fixture_.folder)->info().kv_bytes_per_token);
  EXPECT_EQ(table.total() - cache - workspaces, size.weight_bytes);
  Workspace workspace;
  workspace.own.resize(static_cast<std::size_t>(use.threads));
  workspace.reserve(spec_, use.rows, use.context);
  const std::int64_t logits = use.rows * spec_.vocab_size * static_cast<std::int64_t>(sizeof(float));
  EXPECT_EQ(workspaces, workspace.bytes() + logits);
}

INSTANTIATE_TEST_SUITE_P(Models, Memory, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

TEST(ModelInfo, OfAMixture) {
  const auto model = load(load_fixture("mixtral_a").folder, kernels::DType::kBFloat16);
  const ModelInfo& info = model->info();
  EXPECT_EQ(info.name, "mixtral_a");
  EXPECT_EQ(info.architecture, "mixtral");
  EXPECT_EQ(info.dtype, "bfloat16");
  EXPECT_EQ(info.experts, 8);
  EXPECT_EQ(info.experts_per_token, 2);
  EXPECT_EQ(info.max_positions, 256);
  // Six of eight experts idle in both layers, and all but one row of the embedding.
  EXPECT_EQ(info.parameters - info.active_parameters, 2 * 6 * 3 * 24 * 64 + 198 * 64);
  EXPECT_EQ(info.expert_bytes, (2 * 32 * 64 + 64 * 24) * 2);  // width 24 fills two panels of 16
  EXPECT_EQ(info.kv_bytes_per_token, 2 * 2 * 2 * 24 * 4);
}

// Two layers of two kv heads of 24; int8 has a scale a row and head, for keys and for values.
TEST(ModelInfo, NarrowCachesTakeLess) {
  const std::string folder = load_fixture("mixtral_a").folder;
  const ModelSpec spec = read_spec(folder);
  const std::pair<kernels::DType, std::int64_t> cases[] = {{kernels::DType::kBFloat16, 2 * 2 * 2 * 24 * 2},
                                                           {kernels::DType::kInt8, 2 * 2 * 2 * (24 + 4)}};
  for (const auto& [kv_dtype, per_token] : cases) {
    LoadOptions options;
    options.kv_dtype = kv_dtype;
    options.threads = 1;
    const auto model = load_model(folder, options);
    EXPECT_EQ(model->info().kv_dtype, kernels::dtype_name(kv_dtype));
    EXPECT_EQ(model->info().kv_bytes_per_token, per_token);
    MemoryUse use;
    use.kv_dtype = kv_dtype;
    use.context = 100;
    for (const MemoryLine& line : memory_table(spec, use).lines) {
      if (line.part != "KV cache") continue;
      EXPECT_EQ(line.bytes, 100 * per_token);
    }
  }
}

}  // namespace
}  // namespace specmoe::nn::testing
