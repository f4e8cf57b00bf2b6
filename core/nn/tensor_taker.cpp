#include "core/nn/tensor_taker.h"

#include <algorithm>

#include "core/nn/tensor_views.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::DType;
using kernels::WeightView;

namespace {

std::string shape_text(const TensorTaker::Shape& shape) {
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

}  // namespace

const Tensor* TensorTaker::find(const Alternatives& names, const std::string& suffix) const {
  for (const std::string& name : names) {
    if (const Tensor* tensor = checkpoint_.find(fill(name, layer_, expert_) + suffix)) return tensor;
  }
  return nullptr;
}

bool TensorTaker::has(const Alternatives& names, const std::string& suffix) const {
  return find(names, suffix) != nullptr;
}

void TensorTaker::note(const std::string& problem) {
  constexpr std::size_t kMostListed = 200;
  if (problem_count_++ < kMostListed) problems_.push_back(problem);
}

/// The tensor if it is there with this shape. A vector may be stored as one row (biases of ERNIE 4.5).
const Tensor* TensorTaker::take_tensor(const Alternatives& names, const Shape& shape, const std::string& suffix) {
  SPECMOE_CHECK(!names.empty(), "model_type ", spec_.model_type, ": no name for a tensor ", shape_text(shape));
  const Tensor* tensor = find(names, suffix);
  if (tensor == nullptr) {
    note("missing " + fill(names.front(), layer_, expert_) + suffix + " " + shape_text(shape));
    return nullptr;
  }
  taken_.insert(tensor);
  if (tensor->shape == shape || (shape.size() == 1 && tensor->shape == Shape{1, shape[0]})) return tensor;
  note(tensor->name + " is " + describe(*tensor) + ", expected " + shape_text(shape));
  return nullptr;
}

WeightView TensorTaker::take(const Alternatives& names, const Shape& shape, TensorUse use, const std::string& suffix) {
  const Tensor* tensor = take_tensor(names, shape, suffix);
  if (tensor == nullptr) return {};
  const WeightView view = view_of(*tensor, names, suffix);
  stored_.push_back({tensor->name, tensor, layer_, use, 1, view.rows, view.cols, false, false, view});
  return view;
}

WeightView TensorTaker::take_experts(const Alternatives& names, std::int64_t experts, std::int64_t rows,
                                     std::int64_t cols, bool by_inputs) {
  const bool source_by_inputs = by_inputs && spec_.quantization != Quantization::kInt8;
  const Tensor* tensor =
      take_tensor(names, source_by_inputs ? Shape{experts, cols, rows} : Shape{experts, rows, cols}, "");
  if (tensor == nullptr) return {};
  const WeightView view = view_of(*tensor, names, "");
  stored_.push_back(
      {tensor->name, tensor, layer_, TensorUse::kMatrix, experts, rows, cols, by_inputs, source_by_inputs, view});
  return view;
}

/// All of a tensor as rows of its last dimension.
WeightView TensorTaker::view_of(const Tensor& tensor, const Alternatives& names, const std::string& suffix) {
  if (tensor.dtype == "F8_E4M3" && spec_.quantization == Quantization::kFp8Block && tensor.shape.size() == 2) {
    return take_fp8(tensor, names, suffix);
  }
  if (tensor.dtype == "I8" && spec_.quantization == Quantization::kInt8 && tensor.shape.size() >= 2) {
    return take_int8(tensor, names, suffix);
  }
  WeightView view;
  if (tensor.read_row) {
    view.read_row = tensor.read_row;
  } else if (tensor.dtype == "F32") {
    view.dtype = DType::kFloat32;
  } else if (tensor.dtype == "BF16") {
    view.dtype = DType::kBFloat16;
  } else if (tensor.dtype == "F16") {
    view.dtype = DType::kFloat16;
  } else {
    note(tensor.name + " is " + describe(tensor) + ", expected F32, F16 or BF16");
    return {};
  }
  view.data = tensor.data;
  view.cols = tensor.shape.back();
  view.rows = 1;
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) view.rows *= tensor.shape[i];
  return view;
}

/// The data of float32 NAME + suffix; null when they do not fit.
const std::byte* TensorTaker::take_scales(const Tensor& tensor, const Alternatives& names, const Shape& shape,
                                          const std::string& suffix) {
  const Tensor* scales = take_tensor(names, shape, suffix);
  if (scales == nullptr) return nullptr;
  if (scales->dtype == "F32") return scales->data;
  note(tensor.name + " has scales " + describe(*scales) + ", expected F32");
  return nullptr;
}

WeightView TensorTaker::take_fp8(const Tensor& tensor, const Alternatives& names, const std::string& suffix) {
  const std::int64_t rows = tensor.shape[0];
  const std::int64_t cols = tensor.shape[1];
  const std::int64_t block_rows = spec_.fp8_block_rows;
  const std::int64_t block_cols = spec_.fp8_block_cols;
  const Shape blocks = {(rows + block_rows - 1) / block_rows, (cols + block_cols - 1) / block_cols};
  const std::byte* scales = take_scales(tensor, names, blocks, suffix + "_scale_inv");
  if (scales == nullptr) return {};
  return fp8_blocks(tensor.data, scales, rows, cols, block_rows, block_cols);
}

WeightView TensorTaker::take_int8(const Tensor& tensor, const Alternatives& names, const std::string& suffix) {
  Shape outputs = tensor.shape;
  outputs.pop_back();
  const std::byte* scales = take_scales(tensor, names, outputs, suffix + "_scale");
  if (scales == nullptr) return {};
  std::int64_t rows = 1;
  for (const std::int64_t size : outputs) rows *= size;
  return int8_rows(tensor.data, scales, rows, tensor.shape.back());
}

WeightView TensorTaker::take_mxfp4(const Alternatives& names, std::int64_t experts, std::int64_t rows,
                                   std::int64_t cols, bool by_inputs) {
  constexpr std::int64_t kBlock = 32;
  if (cols % kBlock != 0) {
    note(fill(names.front(), layer_) + " has rows of " + std::to_string(cols) + ", which mxfp4 cannot cut into 32s");
    return {};
  }
  const std::string suffix = "_blocks";
  const Tensor* blocks = take_tensor(names, {experts, rows, cols / kBlock, kBlock / 2}, suffix);
  const Tensor* scales = take_tensor(names, {experts, rows, cols / kBlock}, "_scales");
  if (blocks == nullptr || scales == nullptr) return {};
  for (const Tensor* tensor : {blocks, scales}) {
    if (tensor->dtype != "U8") note(tensor->name + " is " + describe(*tensor) + ", expected U8");
  }
  const WeightView view = mxfp4(blocks->data, scales->data, experts * rows, cols);
  const std::string name = blocks->name.substr(0, blocks->name.size() - suffix.size());
  stored_.push_back({name, blocks, layer_, TensorUse::kMatrix, experts, rows, cols, by_inputs, false, view});
  return view;
}

LinearTensors TensorTaker::take_linear(const Alternatives& stem, std::int64_t rows, std::int64_t cols, bool bias) {
  LinearTensors linear;
  linear.weight = take(stem, {rows, cols}, TensorUse::kMatrix, ".weight");
  if (bias) linear.bias = take(stem, {rows}, TensorUse::kExact, ".bias");
  return linear;
}

void TensorTaker::report() {
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

}  // namespace specmoe::nn
