#include "core/nn/cuda/decode_step.h"

#include "core/nn/cuda/dense_products.h"
#include "tests/cuda/device_test.h"
#include "tests/cuda/step_reference.h"

namespace specmoe::kernels::cuda {

using namespace step_reference;

namespace {

using nn::cuda::DecodeStep;
using nn::cuda::DeviceLayer;
using nn::cuda::DeviceModel;
using nn::cuda::DevicePass;

class DecodeStepTest : public DeviceTest {
 protected:
  const std::byte* keep(const void* data, std::size_t bytes) {
    memory_.emplace_back(std::max<std::size_t>(1, bytes));
    stream_->copy(memory_.back().data(), data, bytes);
    stream_->synchronize();
    return memory_.back().data();
  }
  const float* keep(const std::vector<float>& values) {
    return reinterpret_cast<const float*>(keep(values.data(), values.size() * sizeof(float)));
  }
  DeviceMatrix keep(const PackedMatrix& matrix) {
    memory_.push_back(upload_panels(matrix));
    return device_matrix(matrix, memory_.back().data());
  }
  DeviceMatrices keep(const std::vector<PackedMatrix>& matrices) {
    std::vector<const std::byte*> table;
    for (const PackedMatrix& matrix : matrices) table.push_back(keep(matrix).data);
    const std::byte* device = keep(table.data(), table.size() * sizeof(table[0]));
    return {reinterpret_cast<const std::byte* const*>(device), static_cast<std::int64_t>(matrices.size()),
            device_matrix(matrices.front(), table.front())};
  }
  DeviceModel upload_model(const Model& host) {
    DeviceModel model;
    model.hidden = kHidden;
    model.vocab = kVocab;
    model.norm_eps = kEps;
    model.embedding = keep(host.embedding);
    model.final_norm.weight = keep(host.final_norm);
    model.head = keep(host.head);
    const float* cos_sin = keep(host.cos_sin);
    for (std::size_t i = 0; i < host.layers.size(); ++i) {
      const Model::Layer& layer = host.layers[i];
      DeviceLayer to;
      to.attention_norm.weight = keep(layer.attention_norm);
      to.ffn_norm.weight = keep(layer.ffn_norm);
      to.qkv = keep(layer.qkv);
      to.output = keep(layer.output);
      to.qkv_bias = keep(layer.qkv_bias);
      to.attention = {static_cast<std::int64_t>(i) * kKvHeads * kDim, kHeads, kKvHeads, kDim, 0, 0.4F};
      to.heads.cos_sin = cos_sin;
      to.heads.half = kHalf;
      to.ffn.router = keep(layer.router);
      to.ffn.routing.experts_per_token = kChosen;
      to.ffn.gate_up = keep(layer.gate_up);
      to.ffn.down = keep(layer.down);
      to.ffn.width = kInner;
      model.layers.push_back(to);
    }
    return model;
  }

  struct Cache {
    DeviceArray<float> keys{2 * kKvHeads * kDim * kCapacity}, values{2 * kKvHeads * kDim * kCapacity};
    DeviceArray<std::uint64_t> ancestors{kCapacity};
  };
  /// Rows of one sequence: parents[i] is a row of this pass, or -1.
  void add(DevicePass& pass, const Cache& cache, int committed, const std::vector<std::int32_t>& tokens,
           const std::vector<int>& parents) {
    const auto sequence = static_cast<std::int32_t>(pass.sequences.size());
    std::vector<std::uint64_t> ancestors;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      ancestors.push_back((parents[i] < 0 ? 0 : ancestors[parents[i]]) | std::uint64_t{1} << i);
      const int depth = std::popcount(ancestors[i]);
      pass.tokens.push_back(tokens[i]);
      pass.wanted.push_back(static_cast<std::int32_t>(pass.rows.size()));
      pass.rows.push_back(
          {sequence, committed + static_cast<std::int32_t>(i), committed + depth - 1, static_cast<std::int32_t>(i)});
      pass.longest = std::max(pass.longest, committed + depth);
    }
    stream_->copy(cache.ancestors.data(), ancestors.data(), ancestors.size() * sizeof(std::uint64_t));
    stream_->synchronize();
    pass.sequences.push_back({cache.keys.data(), cache.values.data(), kCapacity, committed, 1, cache.ancestors.data()});
  }
  std::vector<float> logits(const DecodeStep& step, std::int64_t rows) {
    Rows<float> view = step.logits();
    view.rows = rows;
    return download_rows(view);
  }

  std::vector<DeviceArray<std::byte>> memory_;
};

std::vector<int> chain(std::size_t length) {
  std::vector<int> parents;
  for (std::size_t i = 0; i < length; ++i) parents.push_back(static_cast<int>(i) - 1);
  return parents;
}

TEST_P(DecodeStepTest, LogitsMatchDoubleReference) {
  const std::vector<std::int32_t> text = {3, 39, 0, 17, 17, 8, 21};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Model host(dtype);
    const Vector expected = reference(host, text);
    DecodeStep step(upload_model(host), {16, 2, kCapacity}, *stream_);
    const Cache cache;
    DevicePass pass;
    add(pass, cache, 0, text, chain(text.size()));
    step.run(pass);
    const std::vector<float> got = logits(step, static_cast<std::int64_t>(text.size()));
    for (std::size_t i = 0; i < got.size(); ++i) {
      expect_close(got[i], expected[i], {1e-4, 1e-4}, concat(dtype_name(dtype), " logit ", i));
    }
  }
}

// One token at a time, as branches of a tree beside another sequence's rows, from a recorded graph or directly: a
// text's logits have the same bits.
TEST_P(DecodeStepTest, BitsDoNotDependOnHowATextIsComputed) {
  const std::vector<std::int32_t> text = {3, 39, 0, 17, 17};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const DeviceModel model = upload_model(Model(dtype));
    DecodeStep step(model, {16, 2, kCapacity}, *stream_);
    std::vector<float> one_by_one;
    const Cache plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
      DevicePass pass;
      add(pass, plain, static_cast<int>(i), {text[i]}, {-1});
      if (i % 2 == 0) {
        step.run(pass);
      } else {
        step.run_directly(pass);
      }
      const std::vector<float> row = logits(step, 1);
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    }
    // The text lies in rows 0, 2, 4, ...; before each but the first there is a sibling with another token.
    const Cache tree, other;
    DevicePass pass;
    std::vector<std::int32_t> tokens = {text[0]};
    std::vector<int> parents = {-1};
    for (std::size_t i = 1; i < text.size(); ++i) {
      const int parent = static_cast<int>(tokens.size()) - 1;
      tokens.insert(tokens.end(), {5, text[i]});
      parents.insert(parents.end(), 2, parent);
    }
    add(pass, tree, 0, tokens, parents);
    add(pass, other, 0, {1, 2, 3}, chain(3));
    step.run(pass);
    const std::vector<float> all = logits(step, static_cast<std::int64_t>(tokens.size()));
    for (std::size_t i = 0; i < text.size(); ++i) {
      EXPECT_EQ(std::vector<float>(all.begin() + 2 * i * kVocab, all.begin() + (2 * i + 1) * kVocab),
                std::vector<float>(one_by_one.begin() + i * kVocab, one_by_one.begin() + (i + 1) * kVocab))
          << dtype_name(dtype) << " token " << i;
    }
  }
}

// Whole chunks of a prompt go another way; every other pass keeps its bits, whatever there is to choose from.
TEST_P(DecodeStepTest, OnlyWholeChunksOfAPromptAreDense) {
  constexpr int kChunk = 4;
  const std::vector<std::int32_t> text = {3, 39, 0, 17, 17, 8, 21};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Model host(dtype);
    const Vector expected = reference(host, text);
    const DeviceModel model = upload_model(host);
    DenseLinear dense(kChunk, nn::cuda::dense_products(model), *stream_);
    DecodeStep plain(model, {16, 2, kCapacity}, *stream_), fast(model, {16, 2, kCapacity}, *stream_, &dense);
    // The text's first `chunk` tokens in passes of `rows` without logits, then the rest with them.
    const auto rest = [&](DecodeStep& step, int rows, bool wanted, int begin = 0) {
      const Cache cache;
      int at = 0;
      const auto run = [&](int count, bool logits) {
        DevicePass pass;
        add(pass, cache, at, {text.begin() + at, text.begin() + at + count}, chain(count));
        if (!logits) pass.wanted.clear();
        step.run(pass);
        at += count;
      };
      if (begin > 0) run(begin, true);
      for (const int end = begin + kChunk; at < end;) run(rows, wanted);
      const int count = static_cast<int>(text.size()) - at;
      run(count, true);
      return logits(step, count);
    };
    const std::vector<float> dense_chunk = rest(fast, kChunk, false);
    const std::vector<float> same = rest(plain, kChunk, false);
    EXPECT_NE(dense_chunk, same) << "no pass was dense";
    EXPECT_EQ(rest(fast, kChunk, false), dense_chunk);
    EXPECT_EQ(rest(fast, kChunk, true), same) << "rows with logits";
    EXPECT_EQ(rest(fast, kChunk / 2, false), same) << "half a chunk";
    EXPECT_EQ(rest(fast, kChunk, false, 1), rest(plain, kChunk, false, 1)) << "rows from 1 on";
    for (std::size_t i = 0; i < dense_chunk.size(); ++i) {
      expect_close(dense_chunk[i], expected[kChunk * kVocab + i], {1e-4, 1e-4}, concat("logit ", i));
    }
  }
}

TEST_P(DecodeStepTest, RefusesAPassBeyondItsLimits) {
  const DeviceModel model = upload_model(Model(DType::kFloat32));
  DecodeStep step(model, {2, 1, kCapacity}, *stream_);
  const Cache cache;
  DevicePass pass;
  add(pass, cache, 0, {1, 2, 3}, chain(3));
  EXPECT_THROW(step.run(pass), Error);
}

SPECMOE_DEVICE_TESTS(DecodeStepTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
