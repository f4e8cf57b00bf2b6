#include "core/nn/tensor_map.h"

#include <algorithm>
#include <set>

#include "core/nn/tensor_views.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::DType;
using kernels::WeightView;

namespace {

using Shape = std::vector<std::int64_t>;

std::string shape_text(const Shape& shape) {
  Tensor tensor;
  tensor.shape = shape;
  return describe(tensor).substr(1);  // without the dtype and its blank
}

/// The name for one layer and expert.
std::string fill(std::string name, int layer, int expert = -1) {
  const auto put = [&name](const std::string& mark, int number) {
    if (const auto at = name.find(mark); at != std::string::npos) {
      name.replace(at, mark.size(), std::to_string(number));
    }
  };
  put("{layer}", layer);
  put("{expert}", expert);
  return name;
}

/// Where row `row` of `heads` heads in half layout lies when the last rotary_dim elements of a head are interleaved.
std::int64_t interleaved_row(std::int64_t row, std::int64_t head_dim, std::int64_t rotary_dim, std::int64_t first) {
  const std::int64_t j = row % head_dim - first;
  if (j < 0 || j >= rotary_dim) return row;
  const std::int64_t half = rotary_dim / 2;
  return row - j + (j < half ? 2 * j : 2 * (j - half) + 1);
}

/// Takes tensors out of a checkpoint and notes what does not fit, to be reported together.
class Mapper {
 public:
  Mapper(const ModelSpec& spec, const Checkpoint& checkpoint) : spec_(spec), checkpoint_(checkpoint) {}

  ModelTensors map();

 private:
  using Alternatives = TensorNames::Alternatives;

  void set_place(int layer, int expert = -1) {
    layer_ = layer;
    expert_ = expert;
  }
  bool has(const Alternatives& names, const std::string& suffix = "") const {
    return std::ranges::any_of(
        names, [&](const std::string& name) { return checkpoint_.find(fill(name, layer_, expert_) + suffix); });
  }
  const Tensor* take_tensor(const Alternatives& names, const Shape& shape, const std::string& suffix);
  WeightView take(const Alternatives& names, const Shape& shape, const std::string& suffix = "");
  WeightView take_fp8(const Tensor& tensor, const Alternatives& names, const std::string& suffix);
  WeightView take_mxfp4(const Alternatives& names, std::int64_t experts, std::int64_t rows, std::int64_t cols);
  LinearTensors take_linear(const Alternatives& stem, std::int64_t rows, std::int64_t cols, bool bias);
  NormTensors take_norm(const Alternatives& names, const Alternatives& bias_names);
  ExpertTensors take_expert(const Alternatives& gate, const Alternatives& up, const Alternatives& down,
                            std::int64_t width, bool bias);
  LayerTensors take_layer(int index);
  void take_attention(const AttentionSpec& attention, LayerTensors& layer);
  void take_latent(const AttentionSpec& attention, LayerTensors& layer);
  void take_ffn(int index, const FfnSpec& ffn, LayerTensors& layer);
  void take_fused_experts(const FfnSpec& ffn, LayerTensors& layer);
  void take_fused_biases(const FfnSpec& ffn, LayerTensors& layer);
  void take_head(ModelTensors& model);
  void note(const std::string& problem);
  void report();

  const ModelSpec& spec_;
  const Checkpoint& checkpoint_;
  int layer_ = -1;
  int expert_ = -1;
  std::set<const Tensor*> taken_;
  std::vector<std::string> problems_;
  std::size_t problem_count_ = 0;
};

void Mapper::note(const std::string& problem) {
  constexpr std::size_t kMostListed = 200;
  if (problem_count_++ < kMostListed) problems_.push_back(problem);
}

/// The tensor if it is there with this shape.
const Tensor* Mapper::take_tensor(const Alternatives& names, const Shape& shape, const std::string& suffix) {
  const Tensor* tensor = nullptr;
  for (std::size_t i = 0; i < names.size() && tensor == nullptr; ++i) {
    tensor = checkpoint_.find(fill(names[i], layer_, expert_) + suffix);
  }
  if (tensor == nullptr) {
    note("missing " + fill(names.front(), layer_, expert_) + suffix + " " + shape_text(shape));
    return nullptr;
  }
  taken_.insert(tensor);
  if (tensor->shape == shape) return tensor;
  note(tensor->name + " is " + describe(*tensor) + ", expected " + shape_text(shape));
  return nullptr;
}

WeightView Mapper::take(const Alternatives& names, const Shape& shape, const std::string& suffix) {
  const Tensor* tensor = take_tensor(names, shape, suffix);
  if (tensor == nullptr) return {};
  if (tensor->dtype == "F8_E4M3" && spec_.quantization == Quantization::kFp8Block && shape.size() == 2) {
    return take_fp8(*tensor, names, suffix);
  }
  WeightView view;
  if (tensor->read_row) {
    view.read_row = tensor->read_row;
  } else if (tensor->dtype == "F32") {
    view.dtype = DType::kFloat32;
  } else if (tensor->dtype == "BF16") {
    view.dtype = DType::kBFloat16;
  } else if (tensor->dtype == "F16") {
    view.dtype = DType::kFloat16;
  } else {
    note(tensor->name + " is " + describe(*tensor) + ", expected F32, F16 or BF16");
    return {};
  }
  view.data = tensor->data;
  view.cols = shape.back();
  view.rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) view.rows *= shape[i];
  return view;
}

WeightView Mapper::take_fp8(const Tensor& tensor, const Alternatives& names, const std::string& suffix) {
  const std::int64_t rows = tensor.shape[0];
  const std::int64_t cols = tensor.shape[1];
  const std::int64_t block_rows = spec_.fp8_block_rows;
  const std::int64_t block_cols = spec_.fp8_block_cols;
  const Shape blocks = {(rows + block_rows - 1) / block_rows, (cols + block_cols - 1) / block_cols};
  const WeightView scales = take(names, blocks, suffix + "_scale_inv");
  if (scales.data == nullptr) return {};
  if (scales.dtype != DType::kFloat32) {
    note(tensor.name + " has scales of " + std::string(kernels::dtype_name(scales.dtype)) + ", expected float32");
    return {};
  }
  return fp8_blocks(tensor.data, static_cast<const std::byte*>(scales.data), rows, cols, block_rows, block_cols);
}

/// The rows of all experts one after another.
WeightView Mapper::take_mxfp4(const Alternatives& names, std::int64_t experts, std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t kBlock = 32;
  if (cols % kBlock != 0) {
    note(fill(names.front(), layer_) + " has rows of " + std::to_string(cols) + ", which mxfp4 cannot cut into 32s");
    return {};
  }
  const Tensor* blocks = take_tensor(names, {experts, rows, cols / kBlock, kBlock / 2}, "_blocks");
  const Tensor* scales = take_tensor(names, {experts, rows, cols / kBlock}, "_scales");
  if (blocks == nullptr || scales == nullptr) return {};
  for (const Tensor* tensor : {blocks, scales}) {
    if (tensor->dtype != "U8") note(tensor->name + " is " + describe(*tensor) + ", expected U8");
  }
  return mxfp4(blocks->data, scales->data, experts * rows, cols);
}

LinearTensors Mapper::take_linear(const Alternatives& stem, std::int64_t rows, std::int64_t cols, bool bias) {
  LinearTensors linear;
  linear.weight = take(stem, {rows, cols}, ".weight");
  if (bias) linear.bias = take(stem, {rows}, ".bias");
  return linear;
}

NormTensors Mapper::take_norm(const Alternatives& names, const Alternatives& bias_names) {
  NormTensors norm;
  norm.weight = take(names, {spec_.hidden_size});
  if (spec_.norm == NormKind::kLayer) norm.bias = take(bias_names, {spec_.hidden_size});
  return norm;
}

ExpertTensors Mapper::take_expert(const Alternatives& gate, const Alternatives& up, const Alternatives& down,
                                  std::int64_t width, bool bias) {
  ExpertTensors expert;
  expert.gate = take_linear(gate, width, spec_.hidden_size, bias);
  expert.up = take_linear(up, width, spec_.hidden_size, bias);
  expert.down = take_linear(down, spec_.hidden_size, width, bias);
  return expert;
}

void Mapper::take_fused_experts(const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t experts = ffn.router->experts;
  const std::int64_t width = ffn.width;
  const std::int64_t hidden = spec_.hidden_size;
  const FusedLayout layout = spec_.names.fused_layout;
  const bool packed = spec_.quantization == Quantization::kMxfp4 && has(spec_.names.fused_gate_up, "_blocks");
  const bool transposed = layout != FusedLayout::kRows && !packed;
  const auto place = [&](bool up) -> Order {
    if (layout == FusedLayout::kTransposedInterleaved) return [up](std::int64_t row) { return 2 * row + (up ? 1 : 0); };
    return [first = up ? width : 0](std::int64_t row) { return first + row; };
  };
  const auto fused = [&](const Alternatives& names, std::int64_t rows, std::int64_t cols) {
    if (packed) return take_mxfp4(names, experts, rows, cols);
    return take(names, transposed ? Shape{experts, cols, rows} : Shape{experts, rows, cols});
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
  const WeightView gate_up = take(spec_.names.fused_gate_up_bias, {experts, 2 * width});
  const WeightView down = take(spec_.names.fused_down_bias, {experts, spec_.hidden_size});
  for (std::int64_t e = 0; e < experts; ++e) {
    ExpertTensors& expert = layer.experts[static_cast<std::size_t>(e)];
    const WeightView own = row_slice(gate_up, e, 1);
    expert.gate.bias = reorder_elements(own, width, [=](std::int64_t i) { return interleaved ? 2 * i : i; });
    expert.up.bias = reorder_elements(own, width, [=](std::int64_t i) { return interleaved ? 2 * i + 1 : width + i; });
    expert.down.bias = row_slice(down, e, 1);
  }
}

void Mapper::take_ffn(int index, const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t hidden = spec_.hidden_size;
  const TensorNames& names = spec_.names;
  if (!ffn.router) {
    layer.experts.push_back(take_expert(names.gate, names.up, names.down, ffn.width, ffn.bias));
    return;
  }
  const std::int64_t experts = ffn.router->experts;
  layer.router.weight = take(names.router, {experts, hidden});
  if (ffn.router->logit_bias) layer.router.bias = take(names.router_bias, {experts});
  if (ffn.router->choice_bias) layer.choice_bias = take(names.choice_bias, {experts});
  if (ffn.shared) {
    layer.shared = take_expert(names.shared_gate, names.shared_up, names.shared_down, ffn.shared->width, false);
    if (ffn.shared->gated) layer.shared_scale = take(names.shared_scale, {1, hidden});
  }
  if (names.expert_gate.empty() || has(names.fused_gate_up) || has(names.fused_gate_up, "_blocks")) {
    take_fused_experts(ffn, layer);
    return;
  }
  for (int e = 0; e < experts; ++e) {
    set_place(index, e);
    ExpertTensors& expert = layer.experts.emplace_back();
    expert.gate.weight = take(names.expert_gate, {ffn.width, hidden});
    expert.up.weight = take(names.expert_up, {ffn.width, hidden});
    expert.down.weight = take(names.expert_down, {hidden, ffn.width});
  }
  set_place(index);
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
    layer.query_down = take_linear(spec_.names.query_down, latent.query_rank, hidden, attention.qkv_bias);
    layer.query_down_norm = take(spec_.names.query_down_norm, {latent.query_rank});
    layer.query = take_linear(spec_.names.query_up, queries, latent.query_rank, false);
  } else {
    layer.query = take_linear(spec_.names.query, queries, hidden, false);
  }
  layer.kv_down = take_linear(spec_.names.kv_down, latent.kv_rank + latent.rope_dim, hidden, attention.qkv_bias);
  layer.kv_down_norm = take(spec_.names.kv_down_norm, {latent.kv_rank});
  const std::int64_t expanded = std::int64_t{attention.heads} * (latent.nope_dim + latent.value_dim);
  layer.kv_up = take_linear(spec_.names.kv_up, expanded, latent.kv_rank, false);
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
    layer.query = take_linear(names.query, queries, hidden, attention.qkv_bias);
    layer.key = take_linear(names.key, keys, hidden, attention.qkv_bias);
    layer.value = take_linear(names.value, keys, hidden, attention.qkv_bias);
    reorder(layer.query, half_layout(attention));
    reorder(layer.key, half_layout(attention));
  }
  const std::int64_t mixed = std::int64_t{attention.heads} * attention.value_dim();
  layer.output = take_linear(names.output, hidden, mixed, attention.output_bias);
  if (attention.sinks) layer.sinks = take(names.sinks, {attention.heads});
  if (attention.qk_norm != QkNorm::kPerHead && attention.qk_norm != QkNorm::kFlat) return;
  const bool flat = attention.qk_norm == QkNorm::kFlat;
  layer.query_norm = take(names.query_norm, {flat ? queries : attention.head_dim});
  layer.key_norm = take(names.key_norm, {flat ? keys : attention.head_dim});
  if (const std::optional<Order> order = half_layout(attention)) {
    layer.query_norm = reorder_elements(layer.query_norm, layer.query_norm.cols, *order);
    layer.key_norm = reorder_elements(layer.key_norm, layer.key_norm.cols, *order);
  }
}

LayerTensors Mapper::take_layer(int index) {
  const TensorNames& names = spec_.names;
  set_place(index);
  LayerTensors layer;
  layer.attention_norm = take_norm(names.attention_norm, names.attention_norm_bias);
  take_attention(spec_.layers[static_cast<std::size_t>(index)].attention, layer);
  layer.ffn_norm = take_norm(names.ffn_norm, names.ffn_norm_bias);
  if (spec_.block_order == BlockOrder::kSandwich) {
    layer.attention_out_norm = take_norm(names.attention_out_norm, {});
    layer.ffn_out_norm = take_norm(names.ffn_out_norm, {});
  }
  take_ffn(index, spec_.layers[static_cast<std::size_t>(index)].ffn, layer);
  return layer;
}

/// A tied checkpoint holds the embedding, or only the head; when both are there they are not tied after all, as in
/// transformers 5.
void Mapper::take_head(ModelTensors& model) {
  const Shape shape = {spec_.vocab_size, spec_.hidden_size};
  const bool has_embedding = has(spec_.names.embedding);
  const bool has_head = has(spec_.names.head);
  model.tied = spec_.tied_embeddings && !(has_embedding && has_head);
  if (!model.tied) {
    model.embedding = take(spec_.names.embedding, shape);
    model.head = take(spec_.names.head, shape);
  } else {
    model.embedding = take(has_head ? spec_.names.head : spec_.names.embedding, shape);
    model.head = model.embedding;
  }
  if (spec_.head_bias) model.head_bias = take(spec_.names.head_bias, {spec_.vocab_size});
}

void Mapper::report() {
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    // Older checkpoints stored the rotary frequencies, which follow from the configuration.
    const bool ignored = name.ends_with(".rotary_emb.inv_freq") ||
                         std::ranges::any_of(spec_.names.ignored, [&name = name](const std::string& prefix) {
                           return name.starts_with(prefix);
                         });
    if (!taken_.contains(&tensor) && !ignored) note("extra " + tensor.name + " " + describe(tensor));
  }
  if (problem_count_ == 0) return;
  std::string text;
  for (const std::string& problem : problems_) text += (text.empty() ? "" : "; ") + problem;
  if (problem_count_ > problems_.size()) {
    text += "; and " + std::to_string(problem_count_ - problems_.size()) + " more";
  }
  fail(checkpoint_.path(), ": ", problem_count_, " of its tensors do not fit its configuration (model_type ",
       spec_.model_type, "): ", text);
}

ModelTensors Mapper::map() {
  ModelTensors model;
  take_head(model);
  model.final_norm = take_norm(spec_.names.final_norm, spec_.names.final_norm_bias);
  for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) model.layers.push_back(take_layer(i));
  report();
  return model;
}

}  // namespace

ModelTensors map_tensors(const ModelSpec& spec, const Checkpoint& checkpoint) { return Mapper(spec, checkpoint).map(); }

}  // namespace specmoe::nn
