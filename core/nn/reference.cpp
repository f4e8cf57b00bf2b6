#include "core/nn/reference.h"

#include <torch/torch.h>

#include <cmath>

#include "core/nn/checkpoint.h"
#include "core/nn/model_family.h"
#include "core/nn/rope_table.h"
#include "core/nn/tensor_map.h"

namespace specmoe::nn {

/// Not Tensor: that is one of a checkpoint here.
using Array = torch::Tensor;

struct ReferenceModel::State {
  State(const std::string& folder, const ReferenceOptions& options)
      : spec(read_spec(folder)),
        checkpoint(folder),
        tensors(map_tensors(spec, checkpoint)),
        real(options.float64 ? torch::kFloat64 : torch::kFloat32),
        round(options.weights == kernels::DType::kBFloat16) {}

  Array load(const kernels::WeightView& view) const;
  Array matrix(const kernels::WeightView& view) const {
    return round ? load(view).to(torch::kBFloat16).to(real) : load(view).to(real);
  }
  Array linear(const Array& x, const LinearTensors& layer) const {
    const Array y = x.matmul(matrix(layer.weight).t());
    return layer.bias.data == nullptr ? y : y + load(layer.bias).to(real)[0];
  }
  Array norm(const Array& x, const kernels::WeightView& weight) const {
    return x * (x.square().mean(-1, true) + double{spec.norm_eps}).rsqrt() * load(weight).to(real)[0];
  }
  Array rotate(const Array& x, const RopeSpec& rope, const Array& positions) const;
  Array attention(const Array& x, std::size_t layer, const Array& positions, const Array& visible) const;
  Array expert(const Array& x, const ExpertTensors& weights) const {
    return linear(torch::silu(linear(x, weights.gate)) * linear(x, weights.up), weights.down);
  }
  Array mixture(const Array& x, std::size_t layer, std::vector<std::int32_t>& chosen) const;

  ModelSpec spec;
  Checkpoint checkpoint;
  ModelTensors tensors;
  torch::Dtype real;
  bool round;
};

Array ReferenceModel::State::load(const kernels::WeightView& view) const {
  Array values = torch::empty({view.rows, view.cols}, torch::kFloat32);
  for (std::int64_t row = 0; row < view.rows; ++row) {
    const std::vector<float> from = view.row(row);
    std::copy(from.begin(), from.end(), values.mutable_data_ptr<float>() + row * view.cols);
  }
  return values;
}

/// x [n, heads, head_dim], half layout.
Array ReferenceModel::State::rotate(const Array& x, const RopeSpec& rope, const Array& positions) const {
  const std::vector<float> frequencies = rope_frequencies(rope);
  const auto half = static_cast<std::int64_t>(frequencies.size());
  const Array angles = torch::outer(positions.to(torch::kFloat32), torch::tensor(frequencies)).to(real);
  const Array cosine = (angles.cos() * rope.attention_factor).unsqueeze(1);
  const Array sine = (angles.sin() * rope.attention_factor).unsqueeze(1);
  const Array first = x.narrow(-1, 0, half);
  const Array second = x.narrow(-1, half, half);
  const Array rest = x.narrow(-1, 2 * half, x.size(-1) - 2 * half);
  return torch::cat({first * cosine - second * sine, second * cosine + first * sine, rest}, -1);
}

Array ReferenceModel::State::attention(const Array& x, std::size_t layer, const Array& positions,
                                       const Array& visible) const {
  const AttentionSpec& attention = spec.layers[layer].attention;
  const LayerTensors& weights = tensors.layers[layer];
  const auto heads = [&](const LinearTensors& projection, int count) {
    return linear(x, projection).view({x.size(0), count, attention.head_dim});
  };
  const std::int64_t group = attention.heads / attention.kv_heads;
  const Array q = rotate(heads(weights.query, attention.heads), attention.rope, positions);
  const Array k = rotate(heads(weights.key, attention.kv_heads), attention.rope, positions);
  const Array keys = k.repeat_interleave(group, 1);
  const Array values = heads(weights.value, attention.kv_heads).repeat_interleave(group, 1);
  Array seen = visible;
  if (attention.window > 0) {
    seen = seen.logical_and((positions.unsqueeze(1) - positions.unsqueeze(0)) < attention.window);
  }
  Array scores = torch::einsum("ihd,jhd->hij", {q, keys}) * double{attention.scale};
  scores = scores.masked_fill(seen.logical_not().unsqueeze(0), -INFINITY);
  const Array mixed = torch::einsum("hij,jhd->ihd", {scores.softmax(-1), values});
  return linear(mixed.reshape({x.size(0), -1}), weights.output);
}

Array ReferenceModel::State::mixture(const Array& x, std::size_t layer, std::vector<std::int32_t>& chosen) const {
  const RouterSpec& router = *spec.layers[layer].ffn.router;
  const LayerTensors& weights = tensors.layers[layer];
  const Array probs = x.matmul(load(weights.router).to(real).t()).softmax(-1);
  auto [share, index] = probs.topk(router.experts_per_token, -1);
  if (router.renormalise) share = share / share.sum(-1, true);
  Array out = torch::zeros_like(x);
  for (std::int64_t row = 0; row < x.size(0); ++row) {
    for (std::int64_t rank = 0; rank < index.size(1); ++rank) {
      const auto e = index[row][rank].item<std::int64_t>();
      chosen.push_back(static_cast<std::int32_t>(e));
      out[row] += share[row][rank] * expert(x[row], weights.experts[static_cast<std::size_t>(e)]);
    }
  }
  return out;
}

ReferenceModel::ReferenceModel(const std::string& folder, const ReferenceOptions& options)
    : state_(std::make_unique<State>(folder, options)) {}
ReferenceModel::~ReferenceModel() = default;

ReferenceRows ReferenceModel::forward(std::span<const TokenId> tokens, std::span<const std::int32_t> parents) const {
  const torch::NoGradGuard no_grad;
  const State& state = *state_;
  const auto count = static_cast<std::int64_t>(tokens.size());
  Array positions = torch::zeros({count}, torch::kInt64);
  Array visible = torch::eye(count, torch::kBool);
  Array ids = torch::zeros({count}, torch::kInt64);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t parent = parents[static_cast<std::size_t>(i)];
    ids[i] = std::int64_t{tokens[static_cast<std::size_t>(i)]};
    if (parent < 0) continue;
    positions[i] = positions[parent] + 1;
    visible[i] = visible[i].logical_or(visible[parent]);
  }
  ReferenceRows rows;
  rows.vocab = state.spec.vocab_size;
  Array x = state.matrix(state.tensors.embedding).index({ids});
  for (std::size_t layer = 0; layer < state.spec.layers.size(); ++layer) {
    const LayerTensors& weights = state.tensors.layers[layer];
    x = x + state.attention(state.norm(x, weights.attention_norm), layer, positions, visible);
    const Array normed = state.norm(x, weights.ffn_norm);
    x = x + (state.spec.layers[layer].ffn.router ? state.mixture(normed, layer, rows.experts)
                                                 : state.expert(normed, weights.experts.front()));
  }
  const Array logits = state.norm(x, state.tensors.final_norm).matmul(state.matrix(state.tensors.head).t());
  const Array flat = logits.to(torch::kFloat64).contiguous().view(-1);
  rows.logits.assign(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
  return rows;
}

}  // namespace specmoe::nn
