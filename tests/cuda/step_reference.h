#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/support/kernel_data.h"

/// A small model and what it computes in double, for whole passes on a device.
namespace specmoe::kernels::cuda::step_reference {

inline constexpr int kHidden = 24, kHeads = 2, kKvHeads = 1, kDim = 12, kInner = 20, kExperts = 4, kChosen = 2,
                     kVocab = 40;
inline constexpr int kCapacity = 24, kHalf = 5;
inline constexpr float kEps = 1e-5F;

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

inline Vector norm(const Vector& x, const std::vector<float>& weight) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  Vector out;
  for (std::size_t d = 0; d < x.size(); ++d) {
    out.push_back(x[d] * weight[d] / std::sqrt(squares / static_cast<double>(x.size()) + double{kEps}));
  }
  return out;
}

inline Vector product(const PackedMatrix& weight, const Vector& x) {
  Vector out(static_cast<std::size_t>(weight.rows()), 0.0);
  for (std::int64_t n = 0; n < weight.rows(); ++n) {
    for (std::int64_t k = 0; k < weight.cols(); ++k) out[n] += weight.at(n, k) * x[k];
  }
  return out;
}

/// One head, turned for a position.
inline Vector turned(const double* head, const Model& model, std::size_t position) {
  Vector out(head, head + kDim);
  const float* cosine = model.cos_sin.data() + position * 2 * kHalf;
  for (int i = 0; i < kHalf; ++i) {
    out[i] = head[i] * cosine[i] - head[i + kHalf] * cosine[kHalf + i];
    out[i + kHalf] = head[i + kHalf] * cosine[i] + head[i] * cosine[kHalf + i];
  }
  return out;
}

/// What one head sees of the keys and values [position][kDim] up to its own.
inline Vector attend(const Vector& query, const std::vector<Vector>& keys, const std::vector<Vector>& values) {
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

inline Vector feed_forward(const Model::Layer& layer, const Vector& x) {
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
inline Vector reference(const Model& model, const std::vector<std::int32_t>& tokens) {
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

}  // namespace specmoe::kernels::cuda::step_reference
