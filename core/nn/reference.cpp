#include "core/nn/reference.h"

#include <torch/torch.h>

#include <algorithm>
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
  Array vector(const kernels::WeightView& view) const { return load(view).to(real)[0]; }
  Array linear(const Array& x, const LinearTensors& layer) const {
    const Array y = x.matmul(matrix(layer.weight).t());
    return layer.bias.data == nullptr ? y : y + vector(layer.bias);
  }
  Array rms(const Array& x, double eps) const { return x * (x.square().mean(-1, true) + eps).rsqrt(); }
  Array norm(const Array& x, const NormTensors& norm) const;
  Array head_norm(const Array& heads, const kernels::WeightView& weight, QkNorm kind) const;
  Array rotate(const Array& x, const AttentionSpec& attention, const Array& positions) const;
  Array turn(Array heads, const kernels::WeightView& norm_weight, const AttentionSpec& attention,
             const Array& positions) const;
  void project(const Array& x, std::size_t layer, Array& query, Array& key, Array& value) const;
  Array seen(const AttentionSpec& attention, const Array& positions, const Array& visible) const;
  Array attention(const Array& x, std::size_t layer, const Array& positions, const Array& visible) const;
  Array expert(const Array& x, const ExpertTensors& weights, const kernels::Activation& activation) const;
  Array routed_scores(const Array& logits, const RouterSpec& router, const LayerTensors& weights,
                      std::vector<std::int64_t>& chosen) const;
  Array mixture(const Array& x, std::size_t layer, std::vector<std::int32_t>& chosen) const;
  Array feed_forward(const Array& x, std::size_t layer, std::vector<std::int32_t>& chosen) const;

  ModelSpec spec;
  Checkpoint checkpoint;
  ModelTensors tensors;
  torch::Dtype real;
  bool round;
};

Array ReferenceModel::State::load(const kernels::WeightView& view) const {
  Array rows = torch::empty({view.rows, view.cols}, torch::kFloat32);
  for (std::int64_t row = 0; row < view.rows; ++row) {
    std::ranges::copy(view.row(row), rows.data_ptr<float>() + row * view.cols);
  }
  return rows;
}

Array ReferenceModel::State::norm(const Array& x, const NormTensors& norm) const {
  const Array weight = vector(norm.weight);
  switch (spec.norm) {
    case NormKind::kRms:
      return rms(x, spec.norm_eps) * weight;
    case NormKind::kRmsPlusOne:
      return rms(x, spec.norm_eps) * (weight + 1.0);
    case NormKind::kLayer:
      break;
  }
  return rms(x - x.mean(-1, true), spec.norm_eps) * weight + vector(norm.bias);
}

/// heads [n, heads, head_dim]
Array ReferenceModel::State::head_norm(const Array& heads, const kernels::WeightView& weight, QkNorm kind) const {
  if (kind == QkNorm::kPerHead) return norm(heads, {weight, {}});
  if (kind == QkNorm::kFlat) return norm(heads.flatten(1), {weight, {}}).view(heads.sizes());
  return heads;
}

/// x [n, heads, head_dim], half layout; what turns lies at the end of latent heads, at the beginning of others.
Array ReferenceModel::State::rotate(const Array& x, const AttentionSpec& attention, const Array& positions) const {
  if (!attention.rope) return x;
  const RopeSpec& rope = *attention.rope;
  const bool long_context = is_long(rope, static_cast<int>(x.size(0)));
  const std::vector<float> frequencies = rope_frequencies(rope, long_context);
  const auto half = static_cast<std::int64_t>(frequencies.size());
  const std::int64_t before = attention.latent ? attention.latent->nope_dim : 0;
  const Array angles = torch::outer(positions.to(torch::kFloat32), torch::tensor(frequencies)).to(real);
  const double sharpness = long_context ? rope.long_attention_factor : rope.attention_factor;
  const Array cosine = (angles.cos() * sharpness).unsqueeze(1);
  const Array sine = (angles.sin() * sharpness).unsqueeze(1);
  const Array first = x.narrow(-1, before, half);
  const Array second = x.narrow(-1, before + half, half);
  const Array rest = x.narrow(-1, before + 2 * half, x.size(-1) - before - 2 * half);
  return torch::cat({x.narrow(-1, 0, before), first * cosine - second * sine, second * cosine + first * sine, rest},
                    -1);
}

Array ReferenceModel::State::turn(Array heads, const kernels::WeightView& norm_weight, const AttentionSpec& attention,
                                  const Array& positions) const {
  heads = head_norm(heads, norm_weight, attention.qk_norm);
  if (attention.clip > 0) heads = heads.clamp(-attention.clip, attention.clip);
  heads = rotate(heads, attention, positions);
  if (attention.qk_norm == QkNorm::kPerHeadAfterRope) return norm(heads, {norm_weight, {}});
  return attention.qk_norm == QkNorm::kL2AfterRope ? rms(heads, spec.norm_eps) : heads;
}

/// Not yet turned: [n, heads, head_dim], [n, kv_heads, head_dim], [n, kv_heads, value_dim].
void ReferenceModel::State::project(const Array& x, std::size_t layer, Array& query, Array& key, Array& value) const {
  const AttentionSpec& attention = spec.layers[layer].attention;
  const LayerTensors& weights = tensors.layers[layer];
  const auto heads = [&](const Array& flat, int count) { return flat.view({x.size(0), count, -1}); };
  if (!attention.latent) {
    query = heads(linear(x, weights.query), attention.heads);
    key = heads(linear(x, weights.key), attention.kv_heads);
    value = heads(linear(x, weights.value), attention.kv_heads);
    return;
  }
  const LatentSpec& latent = *attention.latent;
  const auto low_norm = [&](const Array& low, const kernels::WeightView& weight) {
    return rms(low, latent.norm_eps) * vector(weight);
  };
  const Array low = latent.query_rank > 0 ? low_norm(linear(x, weights.query_down), weights.query_down_norm) : x;
  query = heads(linear(low, weights.query), attention.heads);
  const Array kv = linear(x, weights.kv_down);
  const Array expanded =
      heads(linear(low_norm(kv.narrow(-1, 0, latent.kv_rank), weights.kv_down_norm), weights.kv_up), attention.heads);
  const Array turning = kv.narrow(-1, latent.kv_rank, latent.rope_dim).unsqueeze(1);
  key = torch::cat({expanded.narrow(-1, 0, latent.nope_dim), turning.expand({-1, attention.heads, -1})}, -1);
  value = expanded.narrow(-1, latent.nope_dim, latent.value_dim);
}

Array ReferenceModel::State::seen(const AttentionSpec& attention, const Array& positions, const Array& visible) const {
  const Array query = positions.unsqueeze(1);
  const Array key = positions.unsqueeze(0);
  Array seen = visible;
  if (attention.window > 0) seen = seen.logical_and(query - key < attention.window);
  if (attention.chunk > 0) {
    seen = seen.logical_and(query.floor_divide(attention.chunk) == key.floor_divide(attention.chunk));
  }
  return seen;
}

Array ReferenceModel::State::attention(const Array& x, std::size_t layer, const Array& positions,
                                       const Array& visible) const {
  const AttentionSpec& attention = spec.layers[layer].attention;
  const LayerTensors& weights = tensors.layers[layer];
  Array query, key, value;
  project(x, layer, query, key, value);
  query = turn(query, weights.query_norm, attention, positions);
  key = turn(key, weights.key_norm, attention, positions);
  if (attention.clip > 0) value = value.clamp(-attention.clip, attention.clip);
  if (attention.temperature) {
    const Array periods = ((positions.to(real) + 1.0) / attention.temperature->floor).floor();
    query = query * (periods.log1p() * attention.temperature->scale + 1.0).view({-1, 1, 1});
  }
  const std::int64_t group = attention.heads / attention.kv_heads;
  Array scores = torch::einsum("ihd,jhd->hij", {query, key.repeat_interleave(group, 1)}) * double{attention.scale};
  scores = scores.masked_fill(seen(attention, positions, visible).logical_not().unsqueeze(0), -INFINITY);
  const std::int64_t count = x.size(0);
  if (attention.sinks) {
    scores = torch::cat({scores, vector(weights.sinks).view({-1, 1, 1}).expand({-1, count, 1})}, -1);
  }
  const Array share = scores.softmax(-1).narrow(-1, 0, count);
  const Array mixed = torch::einsum("hij,jhd->ihd", {share, value.repeat_interleave(group, 1)});
  return linear(mixed.reshape({count, -1}), weights.output);
}

Array ReferenceModel::State::expert(const Array& x, const ExpertTensors& weights,
                                    const kernels::Activation& activation) const {
  const Array gate = linear(x, weights.gate);
  const Array up = linear(x, weights.up);
  switch (activation.kind) {
    case kernels::Activation::Kind::kSilu:
      return linear(torch::silu(gate) * up, weights.down);
    case kernels::Activation::Kind::kGeluTanh:
      return linear(torch::gelu(gate, "tanh") * up, weights.down);
    case kernels::Activation::Kind::kClamped:
      break;
  }
  const Array low = gate.clamp_max(activation.limit);
  const Array kept = up.clamp(-activation.limit, activation.limit);
  return linear(low * torch::sigmoid(low * double{activation.alpha}) * (kept + 1.0), weights.down);
}

/// logits [E] of one row. Fills in the chosen experts, best first; returns their weights.
Array ReferenceModel::State::routed_scores(const Array& logits, const RouterSpec& router, const LayerTensors& weights,
                                           std::vector<std::int64_t>& chosen) const {
  using Score = kernels::Routing::Score;
  const int k = router.experts_per_token;
  if (router.score == Score::kSparsemixer) {
    Array left = logits.clone();
    std::vector<Array> share;
    for (int round = 0; round < 2; ++round) {
      chosen.push_back(left.argmax().item<std::int64_t>());
      const Array best = left[chosen.back()];
      const Array distance = (best - logits) / torch::maximum(logits.abs(), best);
      share.push_back(left.masked_fill(distance > 2.0 * router.jitter, -INFINITY).softmax(0)[chosen.back()].clone());
      left[chosen.back()] = -INFINITY;
    }
    return torch::stack(share) * double{router.scale};
  }
  Array scores = logits;
  if (router.score == Score::kSoftmax) scores = logits.softmax(0);
  if (router.score == Score::kSigmoid) scores = logits.sigmoid();
  Array choice = router.choice_bias ? scores + vector(weights.choice_bias) : scores;
  if (router.groups > 1) {
    const Array grouped = choice.view({router.groups, -1});
    const bool one = router.group_score == kernels::Routing::GroupScore::kMax;
    const Array best = std::get<0>(grouped.topk(one ? 1 : 2, -1)).sum(-1);
    Array mask = torch::full({router.groups}, -INFINITY, best.options());
    mask.index_fill_(0, std::get<1>(best.topk(router.kept_groups)), 0.0);
    choice = (grouped + mask.unsqueeze(1)).flatten();
  }
  const Array index = std::get<1>(choice.topk(k));
  for (int rank = 0; rank < k; ++rank) chosen.push_back(index[rank].item<std::int64_t>());
  Array share = scores.index_select(0, index);
  if (router.score == Score::kSoftmaxOfChosen) return share.softmax(0) * double{router.scale};
  if (router.renormalise) share = share / (share.sum() + double{router.epsilon});
  return share * double{router.scale};
}

Array ReferenceModel::State::mixture(const Array& x, std::size_t layer, std::vector<std::int32_t>& chosen) const {
  const FfnSpec& ffn = spec.layers[layer].ffn;
  const LayerTensors& weights = tensors.layers[layer];
  Array logits = x.matmul(load(weights.router.weight).to(real).t());
  if (ffn.router->logit_bias) logits = logits + vector(weights.router.bias);
  Array out = torch::zeros_like(x);
  for (std::int64_t row = 0; row < x.size(0); ++row) {
    std::vector<std::int64_t> experts;
    const Array share = routed_scores(logits[row], *ffn.router, weights, experts);
    for (std::size_t rank = 0; rank < experts.size(); ++rank) {
      chosen.push_back(static_cast<std::int32_t>(experts[rank]));
      const ExpertTensors& one = weights.experts[static_cast<std::size_t>(experts[rank])];
      const Array weight = share[static_cast<std::int64_t>(rank)];
      out[row] += ffn.router->scales_input ? expert(x[row] * weight, one, ffn.activation)
                                           : weight * expert(x[row], one, ffn.activation);
    }
  }
  if (!ffn.shared) return out;
  const Array shared = expert(x, weights.shared, ffn.activation);
  if (!ffn.shared->gated) return out + shared;
  return out + shared * x.matmul(load(weights.shared_scale).to(real).t()).sigmoid();
}

Array ReferenceModel::State::feed_forward(const Array& x, std::size_t layer, std::vector<std::int32_t>& chosen) const {
  const FfnSpec& ffn = spec.layers[layer].ffn;
  return ffn.router ? mixture(x, layer, chosen) : expert(x, tensors.layers[layer].experts.front(), ffn.activation);
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
  const double residual = state.spec.residual_scale;
  const bool sandwich = state.spec.block_order == BlockOrder::kSandwich;
  Array x = state.matrix(state.tensors.embedding).index({ids}) * double{state.spec.embedding_scale};
  for (std::size_t layer = 0; layer < state.spec.layers.size(); ++layer) {
    const LayerTensors& weights = state.tensors.layers[layer];
    Array added = state.attention(state.norm(x, weights.attention_norm), layer, positions, visible);
    x = x + residual * (sandwich ? state.norm(added, weights.attention_out_norm) : added);
    added = state.feed_forward(state.norm(x, weights.ffn_norm), layer, rows.experts);
    x = x + residual * (sandwich ? state.norm(added, weights.ffn_out_norm) : added);
  }
  Array logits = state.linear(state.norm(x, state.tensors.final_norm), {state.tensors.head, state.tensors.head_bias});
  logits = logits * double{state.spec.logit_scale};
  if (state.spec.logit_softcap > 0) logits = (logits / state.spec.logit_softcap).tanh() * state.spec.logit_softcap;
  const Array flat = logits.to(torch::kFloat64).contiguous().view(-1);
  rows.logits.assign(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
  return rows;
}

}  // namespace specmoe::nn
