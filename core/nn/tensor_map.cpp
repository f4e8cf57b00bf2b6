#include "core/nn/tensor_map.h"

#include <set>

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

/// Takes tensors out of a checkpoint and notes what does not fit, to be reported together.
class Mapper {
 public:
  Mapper(const ModelSpec& spec, const Checkpoint& checkpoint) : spec_(spec), checkpoint_(checkpoint) {}

  ModelTensors map();

 private:
  void set_place(int layer, int expert = -1) {
    layer_ = layer;
    expert_ = expert;
  }
  const Tensor* find(const TensorNames::Alternatives& names, const std::string& suffix) const {
    for (const std::string& name : names) {
      if (const Tensor* tensor = checkpoint_.find(fill(name, layer_, expert_) + suffix)) return tensor;
    }
    return nullptr;
  }
  WeightView take(const TensorNames::Alternatives& names, const Shape& shape, const std::string& suffix = "");
  LinearTensors take_linear(const TensorNames::Alternatives& stem, std::int64_t rows, std::int64_t cols, bool bias);
  LayerTensors take_layer(int index);
  void take_experts(int index, const FfnSpec& ffn, LayerTensors& layer);
  void take_fused_experts(const FfnSpec& ffn, LayerTensors& layer);
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

WeightView Mapper::take(const TensorNames::Alternatives& names, const Shape& shape, const std::string& suffix) {
  const Tensor* tensor = find(names, suffix);
  if (tensor == nullptr) {
    note("missing " + fill(names.front(), layer_, expert_) + suffix + " " + shape_text(shape));
    return {};
  }
  taken_.insert(tensor);
  if (tensor->shape != shape) {
    note(tensor->name + " is " + describe(*tensor) + ", expected " + shape_text(shape));
    return {};
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
  view.rows = shape.size() == 1 ? 1 : shape[shape.size() - 2];
  return view;
}

LinearTensors Mapper::take_linear(const TensorNames::Alternatives& stem, std::int64_t rows, std::int64_t cols,
                                  bool bias) {
  LinearTensors linear;
  linear.weight = take(stem, {rows, cols}, ".weight");
  if (bias) linear.bias = take(stem, {rows}, ".bias");
  return linear;
}

WeightView slice(const WeightView& stacked, std::int64_t first_row, std::int64_t rows) {
  WeightView part = stacked;
  if (stacked.data == nullptr) return part;
  const auto offset = static_cast<std::size_t>(first_row * stacked.cols) * kernels::dtype_bytes(stacked.dtype);
  part.data = static_cast<const std::byte*>(stacked.data) + offset;
  part.rows = rows;
  return part;
}

void Mapper::take_fused_experts(const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t experts = ffn.router->experts;
  const std::int64_t width = ffn.width;
  const std::int64_t hidden = spec_.hidden_size;
  const WeightView gate_up = take(spec_.names.fused_gate_up, {experts, 2 * width, hidden});
  const WeightView down = take(spec_.names.fused_down, {experts, hidden, width});
  for (std::int64_t e = 0; e < experts; ++e) {
    ExpertTensors& expert = layer.experts.emplace_back();
    expert.gate.weight = slice(gate_up, 2 * e * width, width);
    expert.up.weight = slice(gate_up, (2 * e + 1) * width, width);
    expert.down.weight = slice(down, e * hidden, hidden);
  }
}

void Mapper::take_experts(int index, const FfnSpec& ffn, LayerTensors& layer) {
  const std::int64_t hidden = spec_.hidden_size;
  if (!ffn.router) {
    ExpertTensors& dense = layer.experts.emplace_back();
    dense.gate = take_linear(spec_.names.gate, ffn.width, hidden, ffn.bias);
    dense.up = take_linear(spec_.names.up, ffn.width, hidden, ffn.bias);
    dense.down = take_linear(spec_.names.down, hidden, ffn.width, ffn.bias);
    return;
  }
  layer.router = take(spec_.names.router, {ffn.router->experts, hidden});
  if (find(spec_.names.fused_gate_up, "") != nullptr) {
    take_fused_experts(ffn, layer);
    return;
  }
  for (int e = 0; e < ffn.router->experts; ++e) {
    set_place(index, e);
    ExpertTensors& expert = layer.experts.emplace_back();
    expert.gate.weight = take(spec_.names.expert_gate, {ffn.width, hidden});
    expert.up.weight = take(spec_.names.expert_up, {ffn.width, hidden});
    expert.down.weight = take(spec_.names.expert_down, {hidden, ffn.width});
  }
}

LayerTensors Mapper::take_layer(int index) {
  const AttentionSpec& attention = spec_.layers[index].attention;
  const std::int64_t hidden = spec_.hidden_size;
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  const std::int64_t keys = std::int64_t{attention.kv_heads} * attention.head_dim;
  set_place(index);
  LayerTensors layer;
  layer.attention_norm = take(spec_.names.attention_norm, {hidden});
  layer.query = take_linear(spec_.names.query, queries, hidden, attention.qkv_bias);
  layer.key = take_linear(spec_.names.key, keys, hidden, attention.qkv_bias);
  layer.value = take_linear(spec_.names.value, keys, hidden, attention.qkv_bias);
  layer.output = take_linear(spec_.names.output, hidden, queries, attention.output_bias);
  layer.ffn_norm = take(spec_.names.ffn_norm, {hidden});
  take_experts(index, spec_.layers[index].ffn, layer);
  return layer;
}

/// A tied checkpoint holds the embedding, or only the head; when both are there they are not tied after all, as in
/// transformers 5.
void Mapper::take_head(ModelTensors& model) {
  const Shape shape = {spec_.vocab_size, spec_.hidden_size};
  const bool has_embedding = find(spec_.names.embedding, "") != nullptr;
  const bool has_head = find(spec_.names.head, "") != nullptr;
  model.tied = spec_.tied_embeddings && !(has_embedding && has_head);
  if (!model.tied) {
    model.embedding = take(spec_.names.embedding, shape);
    model.head = take(spec_.names.head, shape);
  } else {
    model.embedding = take(has_head ? spec_.names.head : spec_.names.embedding, shape);
    model.head = model.embedding;
  }
}

void Mapper::report() {
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    // Older checkpoints stored the rotary frequencies, which follow from the configuration.
    if (!taken_.contains(&tensor) && !name.ends_with(".rotary_emb.inv_freq")) {
      note("extra " + tensor.name + " " + describe(tensor));
    }
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
  model.final_norm = take(spec_.names.final_norm, {spec_.hidden_size});
  for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) model.layers.push_back(take_layer(i));
  report();
  return model;
}

}  // namespace

ModelTensors map_tensors(const ModelSpec& spec, const Checkpoint& checkpoint) { return Mapper(spec, checkpoint).map(); }

}  // namespace specmoe::nn
