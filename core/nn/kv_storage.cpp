#include "core/nn/kv_storage.h"

#include <cstring>

#include "core/nn/memory_table.h"
#include "kernels/check.h"

namespace specmoe::nn {

KvStorage::KvStorage(const ModelSpec& spec, kernels::DType dtype, int capacity, const void* owner, int text)
    : StagedCache(capacity, owner, text),
      dtype_(dtype),
      keys_(nullptr, nullptr),
      values_(nullptr, nullptr),
      key_scales_(nullptr, nullptr),
      value_scales_(nullptr, nullptr) {
  SPECMOE_CHECK(dtype != kernels::DType::kFloat16, "KV cache: expected float32, bfloat16 or int8, got float16");
  check_memory(bytes(spec, dtype, capacity), concat("a KV cache of ", capacity, " tokens for ", spec.name));
  std::size_t heads = 0;
  std::size_t keys = 0;
  std::size_t values = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    layers_.push_back({heads, keys, values, attention.kv_heads, attention.head_dim, attention.value_dim()});
    const auto kv_heads = static_cast<std::size_t>(attention.kv_heads);
    heads += kv_heads;
    keys += kv_heads * static_cast<std::size_t>(attention.head_dim);
    values += kv_heads * static_cast<std::size_t>(attention.value_dim());
  }
  const auto positions = static_cast<std::size_t>(capacity);
  keys_ = kernels::allocate_aligned(keys * positions * kernels::dtype_bytes(dtype));
  values_ = kernels::allocate_aligned(values * positions * kernels::dtype_bytes(dtype));
  if (dtype != kernels::DType::kInt8) return;
  key_scales_ = kernels::allocate_aligned(heads * positions * sizeof(float));
  value_scales_ = kernels::allocate_aligned(heads * positions * sizeof(float));
}

KvStorage::HeadRows KvStorage::rows_of(int layer, int kv_head) const {
  const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
  const std::size_t element = kernels::dtype_bytes(dtype_);
  const auto positions = static_cast<std::size_t>(capacity());
  const auto head = static_cast<std::size_t>(kv_head);
  const std::size_t key_bytes = static_cast<std::size_t>(shape.head_dim) * element;
  const std::size_t value_bytes = static_cast<std::size_t>(shape.value_dim) * element;
  const auto at = [&](const kernels::AlignedBytes& buffer, std::size_t first, std::size_t row_bytes) {
    return buffer.get() + (first * element + head * row_bytes) * positions;
  };
  const auto scales = [&](const kernels::AlignedBytes& buffer) {
    return buffer == nullptr ? nullptr : reinterpret_cast<float*>(buffer.get()) + (shape.first_head + head) * positions;
  };
  return {at(keys_, shape.first_key, key_bytes),
          at(values_, shape.first_value, value_bytes),
          scales(key_scales_),
          scales(value_scales_),
          key_bytes,
          value_bytes};
}

void KvStorage::put(int layer, int kv_head, int first_staged, kernels::Rows<const float> keys,
                    kernels::Rows<const float> values) const {
  const HeadRows to = rows_of(layer, kv_head);
  const auto first = static_cast<std::size_t>(committed() + first_staged);
  const auto store = [this](const float* row, std::int64_t n, std::byte* elements, float* scales, std::size_t at) {
    const std::size_t bytes = static_cast<std::size_t>(n) * kernels::dtype_bytes(dtype_);
    kernels::store_cached_row(row, n, dtype_, elements + at * bytes, scales == nullptr ? nullptr : scales + at);
  };
  for (std::int64_t t = 0; t < keys.rows; ++t) {
    const std::size_t at = first + static_cast<std::size_t>(t);
    store(keys.row(t), keys.cols, to.keys, to.key_scales, at);
    store(values.row(t), values.cols, to.values, to.value_scales, at);
  }
}

kernels::AttentionHead KvStorage::head(int layer, int kv_head) const {
  const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
  const HeadRows rows = rows_of(layer, kv_head);
  return {rows.keys,   rows.values, shape.head_dim,  shape.value_dim,
          committed(), dtype_,      rows.key_scales, rows.value_scales};
}

std::int64_t KvStorage::bytes(const ModelSpec& spec, kernels::DType dtype, std::int64_t positions) {
  std::int64_t per_position = 0;
  const auto element = static_cast<std::int64_t>(kernels::dtype_bytes(dtype));
  const std::int64_t scales = dtype == kernels::DType::kInt8 ? 2 * sizeof(float) : 0;
  for (const LayerSpec& layer : spec.layers) {
    const std::int64_t width = layer.attention.head_dim + layer.attention.value_dim();
    per_position += layer.attention.kv_heads * (width * element + scales);
  }
  std::int64_t total = 0;
  return __builtin_mul_overflow(per_position, positions, &total) ? INT64_MAX : total;
}

void KvStorage::move_rows(std::span<const std::int32_t> path) {
  for (int layer = 0; layer < static_cast<int>(layers_.size()); ++layer) {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    for (int head = 0; head < shape.kv_heads; ++head) {
      const HeadRows rows = rows_of(layer, head);
      keep_rows(rows.keys, rows.key_bytes, path);
      keep_rows(rows.values, rows.value_bytes, path);
      if (rows.key_scales == nullptr) continue;
      keep_rows(reinterpret_cast<std::byte*>(rows.key_scales), sizeof(float), path);
      keep_rows(reinterpret_cast<std::byte*>(rows.value_scales), sizeof(float), path);
    }
  }
}

void KvStorage::keep_rows(std::byte* rows, std::size_t bytes, std::span<const std::int32_t> path) const {
  rows += static_cast<std::size_t>(committed()) * bytes;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const auto row = static_cast<std::size_t>(path[i]);
    if (row != i) std::memcpy(rows + i * bytes, rows + row * bytes, bytes);
  }
}

}  // namespace specmoe::nn
