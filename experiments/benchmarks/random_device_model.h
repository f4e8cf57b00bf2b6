#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "core/logit_rows.h"
#include "core/nn/cuda/decode_step.h"
#include "kernels/cuda/device_order.h"

namespace specmoe::nn::cuda {

/// A mixture-of-experts transformer of the Mixtral kind; without experts a dense one.
struct Shape {
  const char* name;
  int hidden, layers, heads, kv_heads, head_dim, inner, experts, chosen, vocab;
  int committed = 1024;  // positions in the caches before the rows that are timed
};

/// A model of random weights. Parts of one random block stand for all of them, each part at an address of its own.
class RandomModel {
  using DType = kernels::DType;
  using DeviceMatrix = kernels::cuda::DeviceMatrix;
  using DeviceMatrices = kernels::cuda::DeviceMatrices;
  using Stream = kernels::cuda::Stream;
  template <class T>
  using DeviceArray = kernels::cuda::DeviceArray<T>;

 public:
  RandomModel(const Shape& shape, Stream& stream) : shape_(shape), stream_(stream) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    const float scale = 1.0F / std::sqrt(static_cast<float>(shape.hidden));
    for (std::uint16_t& value : block_) value = to_bfloat16(scale * normal(bits));
    model.hidden = shape.hidden;
    model.vocab = shape.vocab;
    model.embedding_dtype = DType::kBFloat16;
    model.embedding = fill(std::size_t(shape.vocab) * shape.hidden * 2);
    model.final_norm.weight = ones(shape.hidden);
    model.head = matrix(shape.vocab, shape.hidden, DType::kBFloat16);
    const float* cos_sin = ones(std::size_t(capacity()) * shape.head_dim);
    for (int i = 0; i < shape.layers; ++i) model.layers.push_back(layer(i, cos_sin));
    const std::size_t cache = std::size_t(shape.layers) * shape.kv_heads * shape.head_dim * capacity() * sizeof(float);
    keys = reinterpret_cast<float*>(zeros(cache));
    values = reinterpret_cast<float*>(zeros(cache));
    stream_.synchronize();
  }
  int capacity() const { return shape_.committed + kPrefillRows; }

  DeviceModel model;
  float* keys = nullptr;
  float* values = nullptr;
  double dense_bytes = 0;   // read by every step
  double expert_bytes = 0;  // one expert of one layer

 private:
  static std::uint16_t to_bfloat16(float value) {
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  }
  std::byte* zeros(std::size_t bytes) {
    memory_.emplace_back(bytes);
    stream_.zero(memory_.back().data(), bytes);
    return memory_.back().data();
  }
  std::byte* fill(std::size_t bytes) {
    memory_.emplace_back(bytes);
    std::byte* data = memory_.back().data();
    // Tens of gigabytes: they come from the host once.
    const std::size_t size = std::min(block_.size() * 2, bytes);
    stream_.copy(data, block_.data(), size);
    for (std::size_t at = size; at < bytes; at += size) stream_.copy(data + at, data, std::min(size, bytes - at));
    return data;
  }
  const float* ones(std::size_t count) {
    memory_.emplace_back(count * sizeof(float));
    const std::vector<float> values_on_host(count, 0.7F);
    stream_.copy(memory_.back().data(), values_on_host.data(), count * sizeof(float));
    stream_.synchronize();
    return reinterpret_cast<const float*>(memory_.back().data());
  }
  /// The shape of a packed matrix, without its memory.
  static DeviceMatrix shape_of(std::int64_t rows, std::int64_t cols, DType dtype) {
    return {nullptr, rows, cols, kernels::cuda::device_panel_bytes(cols, dtype), dtype};
  }
  static std::size_t bytes_of(const DeviceMatrix& matrix) {
    return static_cast<std::size_t>((matrix.rows + 15) / 16 * matrix.panel_bytes);
  }
  DeviceMatrix matrix(std::int64_t rows, std::int64_t cols, DType dtype) {
    DeviceMatrix result = shape_of(rows, cols, dtype);
    dense_bytes += static_cast<double>(bytes_of(result));
    result.data = fill(bytes_of(result));
    return result;
  }
  DeviceMatrices matrices(std::int64_t rows, std::int64_t cols) {
    DeviceMatrix shape = shape_of(rows, cols, DType::kBFloat16);
    const auto count = static_cast<std::size_t>(std::max(1, shape_.experts));
    const std::byte* first = fill(bytes_of(shape) * count);
    std::vector<const std::byte*> table;
    for (std::size_t e = 0; e < count; ++e) table.push_back(first + e * bytes_of(shape));
    memory_.emplace_back(table.size() * sizeof(table[0]));
    stream_.copy(memory_.back().data(), table.data(), table.size() * sizeof(table[0]));
    stream_.synchronize();
    shape.data = first;
    return {reinterpret_cast<const std::byte* const*>(memory_.back().data()), static_cast<std::int64_t>(count), shape};
  }
  DeviceLayer layer(int index, const float* cos_sin) {
    const Shape& s = shape_;
    DeviceLayer layer;
    layer.attention_norm.weight = ones(s.hidden);
    layer.ffn_norm.weight = ones(s.hidden);
    layer.qkv = matrix((s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden, DType::kBFloat16);
    layer.output = matrix(s.hidden, s.heads * s.head_dim, DType::kBFloat16);
    layer.attention = {std::int64_t{index} * s.kv_heads * s.head_dim, s.heads, s.kv_heads, s.head_dim, 0, 0.1F};
    layer.heads.cos_sin = cos_sin;
    layer.heads.half = s.head_dim / 2;
    if (s.experts > 0) layer.ffn.router = matrix(s.experts, s.hidden, DType::kFloat32);
    layer.ffn.gate_up = matrices(2 * s.inner, s.hidden);
    layer.ffn.down = matrices(s.hidden, s.inner);
    layer.ffn.width = s.inner;
    layer.ffn.routing.experts_per_token = s.chosen;
    expert_bytes = static_cast<double>(bytes_of(layer.ffn.gate_up.shape) + bytes_of(layer.ffn.down.shape));
    return layer;
  }

  Shape shape_;
  Stream& stream_;
  std::vector<std::uint16_t> block_ = std::vector<std::uint16_t>(std::size_t{16} << 20);
  std::vector<DeviceArray<std::byte>> memory_;
};

}  // namespace specmoe::nn::cuda
