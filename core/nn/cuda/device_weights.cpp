#include "core/nn/cuda/device_weights.h"

#include <algorithm>
#include <climits>
#include <sstream>

#include "core/nn/rope_table.h"
#include "kernels/check.h"

namespace specmoe::nn::cuda {

using kernels::DType;
using kernels::cuda::AttentionShape;
using kernels::cuda::HeadRule;

namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

}  // namespace

void check_sizes(const ModelSpec& spec) {
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    const int head = std::max(attention.head_dim, attention.value_dim());
    const int group = attention.heads / attention.kv_heads;
    const int experts = layer.ffn.router ? layer.ffn.router->experts : 1;
    SPECMOE_CHECK(head <= kernels::cuda::kMostHeadDim && group <= kernels::cuda::kMostGroup &&
                      experts <= kernels::cuda::kMostExperts,
                  "model ", spec.name, " on cuda: expected heads of at most ", kernels::cuda::kMostHeadDim,
                  " elements, ", kernels::cuda::kMostGroup, " query heads per kv head and ",
                  kernels::cuda::kMostExperts, " experts, got ", head, ", ", group, " and ", experts,
                  "; use device cpu");
  }
}

MemoryTable device_weight_table(const ModelSpec& spec, DType dtype, bool tied) {
  MemoryTable table = weight_table(spec, dtype, tied);
  std::vector<RopeSpec> ropes;
  std::int64_t floats = 0;
  for (const LayerSpec& layer : spec.layers) {
    const auto& rope = layer.attention.rope;
    if (!rope || std::find(ropes.begin(), ropes.end(), *rope) != ropes.end()) continue;
    ropes.push_back(*rope);
    floats += std::int64_t{spec.max_positions} * rope->rotary_dim * (rope->kind == RopeKind::kLongrope ? 2 : 1);
  }
  table.add("uploading", static_cast<std::int64_t>(kernels::cuda::PanelUpload::kBytes));
  table.add("rotary tables", floats * static_cast<std::int64_t>(sizeof(float)));
  return table;
}

void check_device_memory(const MemoryTable& table, const std::string& model, const std::string& device,
                         const kernels::cuda::DeviceInfo& info) {
  if (table.total() <= static_cast<std::int64_t>(info.free_bytes)) return;
  std::ostringstream parts;
  for (const MemoryLine& line : table.lines) {
    parts << (parts.tellp() > 0 ? ", " : "") << line.part << " " << static_cast<double>(line.bytes) / kGiB;
  }
  fail("model ", model, " needs ", static_cast<double>(table.total()) / kGiB, " GiB on ", device, " (", info.name,
       "), where ", static_cast<double>(info.free_bytes) / kGiB, " of ", static_cast<double>(info.total_bytes) / kGiB,
       " GiB are free: ", parts.str(), " GiB; use a smaller model, dtype bfloat16 or device cpu");
}

void CachePlaces::take(const AttentionSpec& spec, AttentionShape& shape) {
  const bool as_keys = spec.value_dim() == spec.head_dim && values_ == keys_;
  shape.first = keys_;
  shape.value_dim = as_keys ? 0 : spec.value_dim();
  shape.first_value = as_keys ? 0 : values_;
  keys_ += std::int64_t{spec.kv_heads} * spec.head_dim;
  values_ += std::int64_t{spec.kv_heads} * spec.value_dim();
}

DeviceModel part_of(const DeviceModel& whole, const ModelSpec& part, std::span<const int> layers) {
  DeviceModel model = whole;
  model.layers.clear();
  CachePlaces places;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    DeviceLayer& layer = model.layers.emplace_back(whole.layers[static_cast<std::size_t>(layers[i])]);
    places.take(part.layers[i].attention, layer.attention);
    if (part.layers[i].ffn.router) layer.ffn.routing.experts_per_token = part.layers[i].ffn.router->experts_per_token;
  }
  return model;
}

DeviceWeights::DeviceWeights(const ModelSpec& spec, const Weights& weights, kernels::DType kv_dtype, int device,
                             std::shared_ptr<const DeviceWeights> target)
    : kv_dtype_(kv_dtype), store_(device), target_(std::move(target)) {
  model_.hidden = spec.hidden_size;
  model_.vocab = spec.vocab_size;
  model_.norm_eps = spec.norm_eps;
  model_.embedding = store_.keep(weights.embedding);
  model_.embedding_dtype = table_dtype(weights.dtype);
  model_.final_norm = store_.keep(weights.final_norm);
  model_.head = store_.keep(weights.head);
  model_.head_bias = store_.keep(weights.head_bias);
  model_.embedding_panels = model_.head;
  if (target_ != nullptr) borrow(target_->model(), weights);
  model_.embedding_scale = spec.embedding_scale;
  model_.residual_scale = spec.residual_scale;
  model_.product_scale = spec.product_scale();
  model_.logits = {spec.logit_scale, spec.logit_softcap};
  for (const LayerSpec& layer : spec.layers) {
    if (layer.attention.rope) rope_tables(*layer.attention.rope, spec.max_positions);
  }
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    model_.layers.push_back(layer(spec, spec.layers[i], weights.layers[i]));
  }
  if (spec.fusion) model_.fusion = fusion(spec, weights.fusion);
  store_.finish();
}

/// What a draft head lacks is the target's.
void DeviceWeights::borrow(const DeviceModel& target, const Weights& own) {
  if (own.embedding.empty()) {
    model_.embedding = target.embedding;
    model_.embedding_dtype = target.embedding_dtype;
    model_.embedding_panels = target.embedding_panels;
  }
  if (own.head.rows() == 0) {
    model_.head = target.head;
    model_.head_bias = target.head_bias;
  }
}

DeviceFusion DeviceWeights::fusion(const ModelSpec& spec, const FusionWeights& weights) {
  DeviceFusion to;
  to.spec = *spec.fusion;
  to.fc = store_.keep(weights.fc);
  to.bias = store_.keep(weights.bias);
  to.embedding_norm = store_.keep(weights.embedding_norm);
  to.feature_norm = store_.keep(weights.feature_norm);
  if (weights.token_of_draft.empty()) return to;
  std::vector<std::int32_t> places(static_cast<std::size_t>(spec.vocab_size), -1);
  for (std::size_t i = 0; i < weights.token_of_draft.size(); ++i) {
    places[static_cast<std::size_t>(weights.token_of_draft[i])] = static_cast<std::int32_t>(i);
  }
  to.places = store_.keep(places);
  return to;
}

const DeviceWeights::RopeTables& DeviceWeights::rope_tables(const RopeSpec& rope, int positions) {
  for (const RopeTables& tables : ropes_) {
    if (tables.spec == rope) return tables;
  }
  const auto table_for = [&](int text) {
    RopeTable table(rope);
    table.reserve(positions, text);
    const auto floats = static_cast<std::size_t>(positions) * static_cast<std::size_t>(rope.rotary_dim);
    return reinterpret_cast<const float*>(store_.keep(std::as_bytes(std::span(table.data(text), floats))));
  };
  RopeTables tables = {rope, table_for(0), nullptr};
  if (rope.kind == RopeKind::kLongrope) tables.long_text = table_for(INT_MAX);
  ropes_.push_back(tables);
  return ropes_.back();
}

DeviceLayer DeviceWeights::layer(const ModelSpec& model, const LayerSpec& spec, const LayerWeights& weights) {
  DeviceLayer to;
  to.attention_norm = store_.keep(weights.attention_norm);
  to.ffn_norm = store_.keep(weights.ffn_norm);
  if (model.block_order == BlockOrder::kSandwich) {
    to.attention_out_norm = store_.keep(weights.attention_out_norm);
    to.ffn_out_norm = store_.keep(weights.ffn_out_norm);
  }
  to.qkv = store_.keep(weights.qkv);
  to.output = store_.keep(weights.output);
  to.qkv_bias = store_.keep(weights.qkv_bias);
  to.output_bias = store_.keep(weights.output_bias);
  to.attention = shape_of_attention(spec.attention, weights);
  to.attention.out_scale = model.product_scale();
  to.heads = head_rule(model, spec.attention);
  if (spec.attention.qk_norm == QkNorm::kFlat) {
    to.flat_query_norm = store_.keep(weights.query_norm);
    to.flat_key_norm = store_.keep(weights.key_norm);
  } else {
    to.heads.norms.query = store_.keep(weights.query_norm);
    to.heads.norms.key = store_.keep(weights.key_norm);
  }
  if (spec.attention.latent) to.latent = latent(*spec.attention.latent, weights);
  to.ffn = ffn(model, spec.ffn, weights.ffn);
  return to;
}

AttentionShape DeviceWeights::shape_of_attention(const AttentionSpec& spec, const LayerWeights& weights) {
  AttentionShape shape = {0, spec.heads, spec.kv_heads, spec.head_dim, spec.window, spec.scale};
  shape.cached = kv_dtype_;
  shape.chunk = spec.chunk;
  shape.sinks = store_.keep(weights.sinks);
  places_.take(spec, shape);
  return shape;
}

HeadRule DeviceWeights::head_rule(const ModelSpec& model, const AttentionSpec& spec) {
  HeadRule rule;
  rule.norms.eps = model.norm_eps;
  rule.clip = spec.clip;
  rule.norm_after = spec.qk_norm == QkNorm::kL2AfterRope || spec.qk_norm == QkNorm::kPerHeadAfterRope;
  if (spec.rope) {
    const RopeTables& tables = rope_tables(*spec.rope, model.max_positions);
    rule.cos_sin = tables.short_text;
    rule.long_cos_sin = tables.long_text;
    rule.short_text = static_cast<std::int32_t>(std::min<double>(spec.rope->original_positions, INT_MAX));
    rule.half = spec.rope->rotary_dim / 2;
    rule.first_turned = spec.latent ? spec.latent->nope_dim : 0;
  }
  if (spec.temperature) {
    rule.temperature_floor = static_cast<float>(spec.temperature->floor);
    rule.temperature_scale = static_cast<float>(spec.temperature->scale);
  }
  return rule;
}

DeviceLatent DeviceWeights::latent(const LatentSpec& spec, const LayerWeights& weights) {
  DeviceLatent to;
  to.query_rank = spec.query_rank;
  to.kv_rank = spec.kv_rank;
  to.nope_dim = spec.nope_dim;
  to.rope_dim = spec.rope_dim;
  to.eps = spec.norm_eps;
  to.query_norm = store_.keep(weights.query_down_norm);
  to.kv_norm = store_.keep(weights.kv_down_norm);
  to.query_up = store_.keep(weights.query_up);
  to.kv_up = store_.keep(weights.kv_up);
  return to;
}

DeviceFfn DeviceWeights::ffn(const ModelSpec& model, const FfnSpec& spec, const FfnWeights& weights) {
  DeviceFfn to;
  if (spec.router) {
    to.router = store_.keep(weights.router);
    to.router_bias = store_.keep(weights.router_bias);
    to.choice_bias = store_.keep(weights.choice_bias);
    to.routing = *spec.router;
    to.scales_input = spec.router->scales_input;
    if (!to.scales_input) to.routing.scale *= model.product_scale();
  }
  to.gate_up = store_.keep(weights.gate_up);
  to.down = store_.keep(weights.down);
  to.up_bias = store_.keep(weights.up_bias);
  to.down_bias = store_.keep(weights.down_bias);
  to.activation = spec.activation;
  to.width = spec.width;
  if (!spec.shared) return to;
  to.shared.gate_up = store_.keep({&weights.shared_gate_up, 1});
  to.shared.down = store_.keep({&weights.shared_down, 1});
  to.shared.gate = store_.keep(weights.shared_scale);
  to.shared.width = spec.shared->width;
  return to;
}

}  // namespace specmoe::nn::cuda
