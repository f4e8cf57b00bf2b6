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

/// The tensor if it is there with this shape.
const Tensor* TensorTaker::take_tensor(const Alternatives& names, const Shape& shape, const std::string& suffix) {
  SPECMOE_CHECK(!names.empty(), "model_type ", spec_.model_type, ": no name for a tensor ", shape_text(shape));
  const Tensor* tensor = find(names, suffix);
  if (tensor == nullptr) {
    note("missing " + fill(names.front(), layer_, expert_) + suffix + " " + shape_text(shape));
    return nullptr;
  }
  taken_.insert(tensor);
  if (tensor->shape == shape) return tensor;
  note(tensor->name + " is " + describe(*tensor) + ", expected " + shape_text(shape));
  return nullptr;
}

WeightView TensorTaker::take(const Alternatives& names, const Shape& shape, const std::string& suffix) {
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

WeightView TensorTaker::take_fp8(const Tensor& tensor, const Alternatives& names, const std::string& suffix) {
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

WeightView TensorTaker::take_mxfp4(const Alternatives& names, std::int64_t experts, std::int64_t rows,
                                   std::int64_t cols) {
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

LinearTensors TensorTaker::take_linear(const Alternatives& stem, std::int64_t rows, std::int64_t cols, bool bias) {
  LinearTensors linear;
  linear.weight = take(stem, {rows, cols}, ".weight");
  if (bias) linear.bias = take(stem, {rows}, ".bias");
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
