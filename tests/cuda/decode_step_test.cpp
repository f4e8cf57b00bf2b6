#include "core/nn/cuda/decode_step.h"

#include <numeric>

#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

using nn::cuda::DecodeStep;
using nn::cuda::DeviceLayer;
using nn::cuda::DeviceModel;
using nn::cuda::DevicePass;

constexpr int kHidden = 24, kHeads = 2, kKvHeads = 1, kDim = 12, kInner = 20, kExperts = 4, kChosen = 2, kVocab = 40;
constexpr int kCapacity = 24, kHalf = 5;
constexpr float kEps = 1e-5F;

/// A small random model on the host. Its second layer is dense.
struct Model {
  struct Layer {
    std::vector<float> attention_norm, ffn_norm, qkv_bias;
    PackedMatrix qkv, output, router;
    std::vector<PackedMatrix> gate_up, down;
  };
  std::vector<Layer> layers;
  std::vector<float> embedding, final_norm, cos_sin;
  PackedMatrix head;

  explicit Model(DType dtype) {
    constexpr Backend backend = Backend::kScalar;
    embedding = random_floats(kVocab * kHidden, 1);
    final_norm = random_floats(kHidden, 2);
    cos_sin = random_floats(kCapacity * 2 * kHalf, 3);
    head = random_matrix(kVocab, kHidden, dtype, backend, 4);
    for (std::uint32_t seed : {100u, 200u}) {
      Layer layer{random_floats(kHidden, seed),
                  random_floats(kHidden, seed + 1),
                  random_floats((kHeads + 2 * kKvHeads) * kDim, seed + 2),
                  random_matrix((kHeads + 2 * kKvHeads) * kDim, kHidden, dtype, backend, seed + 3),
                  random_matrix(kHidden, kHeads * kDim, dtype, backend, seed + 4),
                  random_matrix(seed == 100u ? kExperts : 0, kHidden, DType::kFloat32, backend, seed + 5),
                  {},
                  {}};
      for (std::uint32_t e = 0; e < (seed == 100u ? kExperts : 1); ++e) {
        const auto gate = random_floats(kInner * kHidden, seed + 10 + 2 * e, 0.4F);
        const auto up = random_floats(kInner * kHidden, seed + 11 + 2 * e, 0.4F);
        layer.gate_up.emplace_back(64, kHidden, dtype, backend);
        layer.gate_up.back().pack_gate_up(weight_view(gate, kInner, kHidden), weight_view(up, kInner, kHidden));
        layer.down.push_back(random_matrix(kHidden, kInner, dtype, backend, seed + 50 + e));
      }
      layers.push_back(std::move(layer));
    }
  }
};

using Vector = std::vector<double>;

Vector norm(const Vector& x, const std::vector<float>& weight) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  Vector out;
  for (std::size_t d = 0; d < x.size(); ++d) {
    out.push_back(x[d] * weight[d] / std::sqrt(squares / static_cast<double>(x.size()) + double{kEps}));
  }
  return out;
}

Vector product(const PackedMatrix& weight, const Vector& x) {
  Vector out(static_cast<std::size_t>(weight.rows()), 0.0);
  for (std::int64_t n = 0; n < weight.rows(); ++n) {
    for (std::int64_t k = 0; k < weight.cols(); ++k) out[n] += weight.at(n, k) * x[k];
  }
  return out;
}

/// One head, turned for a position.
Vector turned(const double* head, const Model& model, std::size_t position) {
  Vector out(head, head + kDim);
  const float* cosine = model.cos_sin.data() + position * 2 * kHalf;
  for (int i = 0; i < kHalf; ++i) {
    out[i] = head[i] * cosine[i] - head[i + kHalf] * cosine[kHalf + i];
    out[i + kHalf] = head[i + kHalf] * cosine[i] + head[i] * cosine[kHalf + i];
  }
  return out;
}

/// What one head sees of the keys and values [position][kDim] up to its own.
Vector attend(const Vector& query, const std::vector<Vector>& keys, const std::vector<Vector>& values) {
  Vector out(kDim, 0.0);
  double total = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const double share = std::exp(0.4 * std::inner_product(query.begin(), query.end(), keys[i].begin(), 0.0));
    total += share;
    for (int d = 0; d < kDim; ++d) out[d] += share * values[i][d];
  }
  for (double& value : out) value /= total;
  return out;
}

Vector feed_forward(const Model::Layer& layer, const Vector& x) {
  std::vector<std::size_t> chosen(layer.gate_up.size());
  std::iota(chosen.begin(), chosen.end(), 0);
  Vector share(chosen.size(), 1.0);
  if (layer.router.rows() > 0) {
    const Vector logits = product(layer.router, x);
    std::sort(chosen.begin(), chosen.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
    chosen.resize(kChosen);
    double total = 0;
    for (const std::size_t e : chosen) total += share[e] = std::exp(logits[e]);
    for (const std::size_t e : chosen) share[e] /= total;
  }
  Vector out(kHidden, 0.0);
  for (const std::size_t e : chosen) {
    const Vector both = product(layer.gate_up[e], x);
    Vector hidden;
    for (int n = 0; n < kInner; ++n) {
      const double gate = both[n / 16 * 32 + n % 16];
      hidden.push_back(gate / (1 + std::exp(-gate)) * both[n / 16 * 32 + n % 16 + 16]);
    }
    const Vector down = product(layer.down[e], hidden);
    for (int d = 0; d < kHidden; ++d) out[d] += share[e] * down[d];
  }
  return out;
}

/// A text decoded token by token in double: all its logits.
Vector reference(const Model& model, const std::vector<std::int32_t>& tokens) {
  std::vector<std::vector<Vector>> keys(model.layers.size()), values(model.layers.size());
  Vector all;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    Vector x(model.embedding.begin() + tokens[t] * kHidden, model.embedding.begin() + (tokens[t] + 1) * kHidden);
    const auto add = [&x](const Vector& more) {
      for (std::size_t d = 0; d < x.size(); ++d) x[d] += more[d];
    };
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
      const Model::Layer& layer = model.layers[i];
      Vector qkv = product(layer.qkv, norm(x, layer.attention_norm));
      for (std::size_t n = 0; n < qkv.size(); ++n) qkv[n] += layer.qkv_bias[n];
      keys[i].push_back(turned(qkv.data() + kHeads * kDim, model, t));
      values[i].emplace_back(qkv.end() - kDim, qkv.end());
      Vector attended;
      for (int h = 0; h < kHeads; ++h) {
        const Vector head = attend(turned(qkv.data() + h * kDim, model, t), keys[i], values[i]);
        attended.insert(attended.end(), head.begin(), head.end());
      }
      add(product(layer.output, attended));
      add(feed_forward(layer, norm(x, layer.ffn_norm)));
    }
    const Vector logits = product(model.head, norm(x, model.final_norm));
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

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
            device_matrix(matrices.front(), nullptr)};
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
    std::vector<DeviceMatrix> projections;
    for (const DeviceLayer& layer : model.layers) projections.insert(projections.end(), {layer.qkv, layer.output});
    DenseLinear dense(kChunk, projections, *stream_);
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
