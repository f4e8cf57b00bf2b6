#include "core/nn/tensor_map.h"

#include "core/nn/tensor_taker.h"
#include "core/nn/tensor_views.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::WeightView;

namespace {

using Shape = TensorTaker::Shape;

/// Where row `row` of `heads` heads in half layout lies when the last rotary_dim elements of a head are interleaved.
std::int64_t interleaved_row(std::int64_t row, std::int64_t head_dim, std::int64_t rotary_dim, std::int64_t first) {
  const std::int64_t j = row % head_dim - first;
  if (j < 0 || j >= rotary_dim) return row;
  const std::int64_t half = rotary_dim / 2;
  return row - j + (j < half ? 2 * j : 2 * (j - half) + 1);
}

/// Gives every tensor its role.
class Mapper {
 public:
  Mapper(const ModelSpec& spec, const Checkpoint& checkpoint) : spec_(spec), from_(spec, checkpoint) {}

  ModelTensors map();

 private:
  using Alternatives = TensorNames::Alternatives;

  NormTensors take_norm(const Alternatives& names, const Alternatives& bias_names);
  ExpertTensors take_expert(const Alternatives& gate, const Alternatives& up, const Alternatives& down,
                            std::int64_t width, bool bias);
  LayerTensors take_layer(int index);
  void take_attention(const AttentionSpec& attention, LayerTensors& layer);
  void take_latent(const AttentionSpec& attention, LayerTensors& layer);
  void take_ffn(int place, const FfnSpec& ffn, LayerTensors& layer);
  void take_fused_experts(const FfnSpec& ffn, LayerTensors& layer);
  void take_fused_biases(const FfnSpec& ffn, LayerTensors& layer);
  void take_head(ModelTensors& model);
  void take_fusion(ModelTensors& model);

  const ModelSpec& spec_;
  TensorTaker from_;
};

NormTensors Mapper::take_norm(const Alternatives& names, const Alternatives& bias_names) {
  NormTensors norm;
  if (names.empty() && spec_.fusion) return norm;
  norm.weight = from_.take(names, {spec_.hidden_size});
  if (spec_.norm == NormKind::kLayer) norm.bias = from_.take(bias_names, {spec_.hidden_size});
  return norm;
}

ExpertTensors Mapper::take_expert(const Alternatives& gate, const Alternatives& up, const Alternatives& down,
                                  std::int64_t width, bool bias) {
  ExpertTensors expert;
  expert.gate = from_.take_linear(gate, width, spec_.hidden_size, bias);
  expert.up = from_.take_linear(up, width, spec_.hidden_size, bias);
  expert.down = from_.take_linear(down, spec_.hidden_size, width, bias);
  return expert;
}

void Mapper::take_fused_experts(const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t experts = ffn.router->experts;
  const std::int64_t width = ffn.width;
  const std::int64_t hidden = spec_.hidden_size;
  const FusedLayout layout = spec_.names.fused_layout;
  const bool by_inputs = layout != FusedLayout::kRows;
  const bool mxfp4 = spec_.quantization == Quantization::kMxfp4 && from_.has(spec_.names.fused_gate_up, "_blocks");
  const bool transposed = by_inputs && !mxfp4 && spec_.quantization != Quantization::kInt8;
  const auto place = [&](bool up) -> Order {
    if (layout == FusedLayout::kTransposedInterleaved) return [up](std::int64_t row) { return 2 * row + (up ? 1 : 0); };
    return [first = up ? width : 0](std::int64_t row) { return first + row; };
  };
  const auto fused = [&](const Alternatives& names, std::int64_t rows, std::int64_t cols) {
    return mxfp4 ? from_.take_mxfp4(names, experts, rows, cols, by_inputs)
                 : from_.take_experts(names, experts, rows, cols, by_inputs);
  };
  const WeightView gate_up = fused(spec_.names.fused_gate_up, 2 * width, hidden);
  const WeightView down = fused(spec_.names.fused_down, hidden, width);
  for (std::int64_t e = 0; e < experts; ++e) {
    ExpertTensors& expert = layer.experts.emplace_back();
    if (transposed) {
      const WeightView own = row_slice(gate_up, e * hidden, hidden);
      expert.gate.weight = columns(own, width, place(false));
      expert.up.weight = columns(own, width, place(true));
      expert.down.weight = columns(row_slice(down, e * width, width), hidden, [](std::int64_t row) { return row; });
      continue;
    }
    const WeightView own = row_slice(gate_up, e * 2 * width, 2 * width);
    if (layout == FusedLayout::kTransposedInterleaved) {
      expert.gate.weight = reorder_rows(own, width, place(false));
      expert.up.weight = reorder_rows(own, width, place(true));
    } else {
      expert.gate.weight = row_slice(own, 0, width);
      expert.up.weight = row_slice(own, width, width);
    }
    expert.down.weight = row_slice(down, e * hidden, hidden);
  }
  if (ffn.bias) take_fused_biases(ffn, layer);
}

void Mapper::take_fused_biases(const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t experts = ffn.router->experts;
  const std::int64_t width = ffn.width;
  const bool interleaved = spec_.names.fused_layout == FusedLayout::kTransposedInterleaved;
  const WeightView gate_up = from_.take(spec_.names.fused_gate_up_bias, {experts, 2 * width});
  const WeightView down = from_.take(spec_.names.fused_down_bias, {experts, spec_.hidden_size});
  for (std::int64_t e = 0; e < experts; ++e) {
    ExpertTensors& expert = layer.experts[static_cast<std::size_t>(e)];
    const WeightView own = row_slice(gate_up, e, 1);
    expert.gate.bias = reorder_elements(own, width, [=](std::int64_t i) { return interleaved ? 2 * i : i; });
    expert.up.bias = reorder_elements(own, width, [=](std::int64_t i) { return interleaved ? 2 * i + 1 : width + i; });
    expert.down.bias = row_slice(down, e, 1);
  }
}

void Mapper::take_ffn(int place, const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t hidden = spec_.hidden_size;
  const TensorNames& names = spec_.names;
  if (!ffn.router) {
    layer.experts.push_back(take_expert(names.gate, names.up, names.down, ffn.width, ffn.bias));
    return;
  }
  const std::int64_t experts = ffn.router->experts;
  layer.router.weight = from_.take(names.router, {experts, hidden});
  if (ffn.router->logit_bias) layer.router.bias = from_.take(names.router_bias, {experts});
  if (ffn.router->choice_bias) layer.choice_bias = from_.take(names.choice_bias, {experts});
  if (ffn.shared) {
    layer.shared = take_expert(names.shared_gate, names.shared_up, names.shared_down, ffn.shared->width, false);
    if (ffn.shared->gated) layer.shared_scale = from_.take(names.shared_scale, {1, hidden});
  }
  if (names.expert_gate.empty() || from_.has(names.fused_gate_up) || from_.has(names.fused_gate_up, "_blocks")) {
    take_fused_experts(ffn, layer);
    return;
  }
  for (int e = 0; e < experts; ++e) {
    from_.set_place(place, e);
    layer.experts.push_back(take_expert(names.expert_gate, names.expert_up, names.expert_down, ffn.width, ffn.bias));
  }
  from_.set_place(place);
}

/// Half layout for heads that turn interleaved: which element of the checkpoint each one is. Nothing: as they are.
std::optional<Order> half_layout(const AttentionSpec& attention) {
  if (!attention.rope || !attention.rope->interleaved) return std::nullopt;
  const std::int64_t first = attention.latent ? attention.latent->nope_dim : 0;
  return [head_dim = std::int64_t{attention.head_dim}, rotary = std::int64_t{attention.rope->rotary_dim},
          first](std::int64_t row) { return interleaved_row(row, head_dim, rotary, first); };
}

void reorder(LinearTensors& heads, const std::optional<Order>& order) {
  if (!order) return;
  heads.weight = reorder_rows(heads.weight, heads.weight.rows, *order);
  heads.bias = reorder_elements(heads.bias, heads.bias.cols, *order);
}

void Mapper::take_latent(const AttentionSpec& attention, LayerTensors& layer) {
  const LatentSpec& latent = *attention.latent;
  const std::int64_t hidden = spec_.hidden_size;
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  if (latent.query_rank > 0) {
    layer.query_down = from_.take_linear(spec_.names.query_down, latent.query_rank, hidden, attention.qkv_bias);
    layer.query_down_norm = from_.take(spec_.names.query_down_norm, {latent.query_rank});
    layer.query = from_.take_linear(spec_.names.query_up, queries, latent.query_rank, false);
  } else {
    layer.query = from_.take_linear(spec_.names.query, queries, hidden, false);
  }
  layer.kv_down = from_.take_linear(spec_.names.kv_down, latent.kv_rank + latent.rope_dim, hidden, attention.qkv_bias);
  layer.kv_down_norm = from_.take(spec_.names.kv_down_norm, {latent.kv_rank});
  const std::int64_t expanded = std::int64_t{attention.heads} * (latent.nope_dim + latent.value_dim);
  layer.kv_up = from_.take_linear(spec_.names.kv_up, expanded, latent.kv_rank, false);
  reorder(layer.query, half_layout(attention));
  if (!half_layout(attention)) return;
  const Order order = [first = std::int64_t{latent.kv_rank}, rotary = std::int64_t{latent.rope_dim}](std::int64_t row) {
    return interleaved_row(row, first + rotary, rotary, first);
  };
  reorder(layer.kv_down, order);
}

void Mapper::take_attention(const AttentionSpec& attention, LayerTensors& layer) {
  const TensorNames& names = spec_.names;
  const std::int64_t hidden = spec_.hidden_size;
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  const std::int64_t keys = std::int64_t{attention.kv_heads} * attention.head_dim;
  if (attention.latent) {
    take_latent(attention, layer);
  } else {
    const std::int64_t inputs = spec_.attention_inputs();
    layer.query = from_.take_linear(names.query, queries, inputs, attention.qkv_bias);
    layer.key = from_.take_linear(names.key, keys, inputs, attention.qkv_bias);
    layer.value = from_.take_linear(names.value, keys, inputs, attention.qkv_bias);
    reorder(layer.query, half_layout(attention));
    reorder(layer.key, half_layout(attention));
  }
  const std::int64_t mixed = std::int64_t{attention.heads} * attention.value_dim();
  layer.output = from_.take_linear(names.output, hidden, mixed, attention.output_bias);
  if (attention.sinks) layer.sinks = from_.take(names.sinks, {attention.heads});
  if (attention.qk_norm == QkNorm::kNone || attention.qk_norm == QkNorm::kL2AfterRope) return;
  const bool flat = attention.qk_norm == QkNorm::kFlat;
  layer.query_norm = from_.take(names.query_norm, {flat ? queries : attention.head_dim});
  layer.key_norm = from_.take(names.key_norm, {flat ? keys : attention.head_dim});
  if (const std::optional<Order> order = half_layout(attention)) {
    layer.query_norm = reorder_elements(layer.query_norm, layer.query_norm.cols, *order);
    layer.key_norm = reorder_elements(layer.key_norm, layer.key_norm.cols, *order);
  }
}

LayerTensors Mapper::take_layer(int index) {
  const TensorNames& names = spec_.names;
  const int place = spec_.first_layer + index;
  from_.set_place(place);
  LayerTensors layer;
  layer.attention_norm = take_norm(names.attention_norm, names.attention_norm_bias);
  take_attention(spec_.layers[static_cast<std::size_t>(index)].attention, layer);
  layer.ffn_norm = take_norm(names.ffn_norm, names.ffn_norm_bias);
  if (spec_.block_order == BlockOrder::kSandwich) {
    layer.attention_out_norm = take_norm(names.attention_out_norm, {});
    layer.ffn_out_norm = take_norm(names.ffn_out_norm, {});
  }
  take_ffn(place, spec_.layers[static_cast<std::size_t>(index)].ffn, layer);
  return layer;
}

/// A tied checkpoint holds the embedding, or only the head; when both are there they are not tied after all, as in
/// transformers 5.
void Mapper::take_head(ModelTensors& model) {
  const Shape shape = {spec_.vocab_size, spec_.hidden_size};
  const bool has_embedding = from_.has(spec_.names.embedding);
  const bool has_head = from_.has(spec_.names.head);
  model.tied = spec_.tied_embeddings && !(has_embedding && has_head);
  if (!model.tied) {
    model.embedding = from_.take(spec_.names.embedding, shape, TensorUse::kTable);
    model.head = from_.take(spec_.names.head, shape, TensorUse::kMatrix);
  } else {
    model.embedding = from_.take(has_head ? spec_.names.head : spec_.names.embedding, shape, TensorUse::kMatrix);
    model.head = model.embedding;
  }
  if (spec_.head_bias) model.head_bias = from_.take(spec_.names.head_bias, {spec_.vocab_size});
}

/// What a draft head has besides; of embedding and output matrix what is its own.
void Mapper::take_fusion(ModelTensors& model) {
  const FusionSpec& fusion = *spec_.fusion;
  const std::int64_t hidden = spec_.hidden_size;
  const TensorNames& names = spec_.names;
  from_.set_place(spec_.first_layer);
  model.fusion.fc = from_.take_linear(names.fusion, hidden, spec_.fusion_inputs(), fusion.bias);
  if (fusion.normed_embedding) model.fusion.embedding_norm = from_.take(names.embedding_norm, {hidden});
  const std::int64_t normed =
      fusion.feature_norm == FeatureNorm::kEach ? fusion.tap_size : std::int64_t{spec_.feature_norm_size()};
  for (const Alternatives& name : names.feature_norms) {
    model.fusion.feature_norms.push_back(from_.take(name, {normed}));
  }
  if (!fusion.wide_attention) return;
  if (from_.has(names.embedding)) {
    model.embedding = from_.take(names.embedding, {spec_.vocab_size, hidden}, TensorUse::kTable);
  }
  model.head = from_.take(names.head, {spec_.head_rows(), hidden}, TensorUse::kMatrix);
}

ModelTensors Mapper::map() {
  ModelTensors model;
  spec_.fusion ? take_fusion(model) : take_head(model);
  model.final_norm = take_norm(spec_.names.final_norm, spec_.names.final_norm_bias);
  for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) model.layers.push_back(take_layer(i));
  from_.report();
  model.stored = from_.stored();
  return model;
}

}  // namespace

ModelTensors map_tensors(const ModelSpec& spec, const Checkpoint& checkpoint) { return Mapper(spec, checkpoint).map(); }

}  // namespace specmoe::nn
