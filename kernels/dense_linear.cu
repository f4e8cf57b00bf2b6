#include "kernels/cuda/dense_linear.h"

#include <algorithm>

#include "kernels/activate.h"
#include "kernels/check.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/panel_product.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

std::int64_t padded(std::int64_t count, std::int64_t to) { return (count + to - 1) / to * to; }
int parts(DType dtype) { return dtype == DType::kBFloat16 ? 3 : 1; }
std::int64_t element_bytes(DType dtype) { return dtype == DType::kBFloat16 ? 2 : 4; }

/// Whole panels of whole tiles: 32 bytes of each output.
ProductShape product_shape(int rows, const DeviceMatrix& weight) {
  return {std::int64_t{rows} * parts(weight.dtype), padded(weight.rows, kPanelOutputs),
          weight.panel_bytes / kPanelOutputs / element_bytes(weight.dtype), weight.dtype};
}

/// A block per tile of a panel, a thread per word.
__global__ void __launch_bounds__(kTileWords)
    unpack_kernel(DeviceMatrix weight, std::int64_t row_words, std::uint32_t* out) {
  const TileWord at(weight.dtype, static_cast<std::int32_t>(threadIdx.x));
  const std::byte* tile = weight.data + blockIdx.y * weight.panel_bytes + std::int64_t{blockIdx.x} * kTileBytes;
  const std::int64_t row = std::int64_t{blockIdx.y} * kPanelOutputs + at.output;
  out[row * row_words + std::int64_t{blockIdx.x} * kTileLines + at.line] =
      reinterpret_cast<const std::uint32_t*>(tile)[threadIdx.x];
}

/// A block per row of x, with zeros behind its inputs.
__global__ void __launch_bounds__(kThreads) pad_kernel(Rows<const float> x, std::int64_t inputs, float* out) {
  const float* from = x.row(blockIdx.x);
  float* to = out + blockIdx.x * inputs;
  for (std::int64_t k = threadIdx.x; k < inputs; k += kThreads) to[k] = k < x.cols ? from[k] : 0.0f;
}

/// The same, cut into three: part p of row t is row p * rows + t.
__global__ void __launch_bounds__(kThreads)
    split_kernel(Rows<const float> x, int rows, std::int64_t inputs, Bf16x2* out) {
  const float* from = x.row(blockIdx.x);
  const std::int64_t row_pairs = inputs / 2;
  for (std::int64_t pair = threadIdx.x; pair < row_pairs; pair += kThreads) {
    const float2 two = two_inputs(from, static_cast<int>(2 * pair), static_cast<int>(x.cols));
    const SplitInputs split = split_inputs(two, {0.0f, 0.0f});
    for (int p = 0; p < 3; ++p) out[(std::int64_t{p} * rows + blockIdx.x) * row_pairs + pair] = split.part[p].b[0];
  }
}

/// What a product leaves: [parts * rows, outputs].
struct PartSums {
  const float* sums;
  int parts, rows;
  std::int64_t outputs;

  /// The smallest first.
  __device__ float at(int t, std::int64_t n) const {
    float sum = 0.0f;
    for (int p = parts - 1; p >= 0; --p) sum += sums[(std::int64_t{p} * rows + t) * outputs + n];
    return sum;
  }
};

__device__ std::int64_t output_of_thread() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }

/// out = residual + row_weight * (sum + bias).
__global__ void __launch_bounds__(kThreads) finish_kernel(PartSums sums, const float* bias, const float* row_weight,
                                                          Rows<const float> residual, Rows<float> out) {
  const std::int64_t n = output_of_thread();
  const int t = static_cast<int>(blockIdx.y);
  if (n >= out.cols) return;
  float sum = sums.at(t, n);
  if (bias != nullptr) sum += bias[n];
  out.row(t)[n] =
      fmaf(row_weight != nullptr ? row_weight[t] : 1.0f, sum, residual.data != nullptr ? residual.row(t)[n] : 0.0f);
}

/// hidden = activation(gate + bias, up + bias), of panels that take turns.
__global__ void __launch_bounds__(kThreads)
    finish_up_kernel(PartSums sums, const float* bias, Activation activation, Rows<float> hidden) {
  const std::int64_t n = output_of_thread();
  const int t = static_cast<int>(blockIdx.y);
  if (n >= hidden.cols) return;
  const std::int64_t column = n / kPanelOutputs * 2 * kPanelOutputs + n % kPanelOutputs;
  float gate = sums.at(t, column);
  float up = sums.at(t, column + kPanelOutputs);
  if (bias != nullptr) {
    gate += bias[n];
    up += bias[hidden.cols + n];
  }
  hidden.row(t)[n] = activate(activation, gate, up);
}

void unpack(const DeviceMatrix& weight, const ProductShape& shape, std::byte* out, Stream& stream) {
  const dim3 grid(static_cast<unsigned>(weight.panel_bytes / kTileBytes),
                  static_cast<unsigned>(shape.outputs / kPanelOutputs));
  launch(unpack_kernel, grid, kTileWords, 0, stream, weight, shape.inputs * element_bytes(weight.dtype) / 4,
         reinterpret_cast<std::uint32_t*>(out));
}

/// What all products together need.
struct Room {
  std::int64_t weight_bytes = 1, x_bytes = 1, sums = 1;

  Room(int rows, std::span<const DeviceMatrix> weights) {
    for (const DeviceMatrix& weight : weights) {
      const ProductShape shape = product_shape(rows, weight);
      const std::int64_t row_bytes = shape.inputs * element_bytes(shape.dtype);
      weight_bytes = std::max(weight_bytes, shape.outputs * row_bytes);
      x_bytes = std::max(x_bytes, shape.rows * row_bytes);
      sums = std::max(sums, shape.rows * shape.outputs);
    }
  }
};

/// A thread per element.
dim3 grid_of(const Rows<float>& out, int rows) {
  return {static_cast<unsigned>((out.cols + kThreads - 1) / kThreads), static_cast<unsigned>(rows)};
}

}  // namespace

std::int64_t DenseLinear::device_bytes(int rows, std::span<const DeviceMatrix> weights) {
  const Room room(rows, weights);
  return room.weight_bytes + room.x_bytes + room.sums * static_cast<std::int64_t>(sizeof(float)) +
         static_cast<std::int64_t>(kDenseWorkspaceBytes);
}

DenseLinear::DenseLinear(int rows, std::span<const DeviceMatrix> weights, Stream& stream)
    : rows_(rows), stream_(stream), product_(stream) {
  const Room room(rows, weights);
  weight_ = DeviceArray<std::byte>(static_cast<std::size_t>(room.weight_bytes), stream.device());
  x_ = DeviceArray<std::byte>(static_cast<std::size_t>(room.x_bytes), stream.device());
  sums_ = DeviceArray<float>(static_cast<std::size_t>(room.sums), stream.device());
  // Of whatever lies there: so that what a shape needs is chosen and loaded now, and not while a graph is recorded.
  for (const DeviceMatrix& weight : weights) {
    const ProductShape shape = product_shape(rows, weight);
    if (std::find(shapes_.begin(), shapes_.end(), shape) != shapes_.end()) continue;
    shapes_.push_back(shape);
    product_.multiply(shape, x_.data(), weight_.data(), sums_.data());
  }
  stream.synchronize();
}

ProductShape DenseLinear::multiply_parts(Rows<const float> x, const DeviceMatrix& weight) {
  const ProductShape shape = product_shape(rows_, weight);
  SPECMOE_CHECK(x.rows == rows_ && x.stride % 2 == 0, "dense_linear on cuda: expected ", rows_,
                " rows an even number of floats apart, got ", x.rows, " rows ", x.stride, " apart");
  SPECMOE_CHECK(std::find(shapes_.begin(), shapes_.end(), shape) != shapes_.end(),
                "dense_linear on cuda: it was not made for a matrix [", weight.rows, ", ", weight.cols, "]");
  const auto blocks = static_cast<unsigned>(rows_);
  unpack(weight, shape, weight_.data(), stream_);
  if (weight.dtype == DType::kBFloat16) {
    launch(split_kernel, blocks, kThreads, 0, stream_, x, rows_, shape.inputs, reinterpret_cast<Bf16x2*>(x_.data()));
  } else {
    launch(pad_kernel, blocks, kThreads, 0, stream_, x, shape.inputs, reinterpret_cast<float*>(x_.data()));
  }
  product_.multiply(shape, x_.data(), weight_.data(), sums_.data());
  return shape;
}

void DenseLinear::multiply(Rows<const float> x, const DeviceMatrix& weight, const float* bias,
                           Rows<const float> residual, Rows<float> out, const float* row_weight) {
  const ProductShape shape = multiply_parts(x, weight);
  launch(finish_kernel, grid_of(out, rows_), kThreads, 0, stream_,
         PartSums{sums_.data(), parts(weight.dtype), rows_, shape.outputs}, bias, row_weight, residual, out);
}

void DenseLinear::multiply_gate_up(Rows<const float> x, const DeviceMatrix& gate_up, const float* bias,
                                   const Activation& activation, Rows<float> hidden) {
  const ProductShape shape = multiply_parts(x, gate_up);
  SPECMOE_CHECK(shape.outputs == 2 * padded(hidden.cols, kPanelOutputs), "dense_linear on cuda: expected ",
                2 * padded(hidden.cols, kPanelOutputs), " outputs of gate and up for ", hidden.cols,
                " hidden ones, got ", shape.outputs);
  launch(finish_up_kernel, grid_of(hidden, rows_), kThreads, 0, stream_,
         PartSums{sums_.data(), parts(gate_up.dtype), rows_, shape.outputs}, bias, activation, hidden);
}

}  // namespace specmoe::kernels::cuda
