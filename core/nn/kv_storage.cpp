#include "core/nn/kv_storage.h"

#include <cstring>

#include "core/nn/memory_table.h"
#include "kernels/check.h"

namespace specmoe::nn {

KvStorage::KvStorage(const ModelSpec& spec, int capacity, const void* owner, int text)
    : StagedCache(capacity, owner, text) {
  check_memory(bytes(spec, capacity), concat("a KV cache of ", capacity, " tokens for ", spec.name));
  std::size_t keys = 0;
  std::size_t values = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    layers_.push_back({keys, values, attention.kv_heads, attention.head_dim, attention.value_dim()});
    keys += static_cast<std::size_t>(attention.kv_heads) * static_cast<std::size_t>(attention.head_dim);
    values += static_cast<std::size_t>(attention.kv_heads) * static_cast<std::size_t>(attention.value_dim());
  }
  keys_.reserve(keys * static_cast<std::size_t>(capacity));
  values_.reserve(values * static_cast<std::size_t>(capacity));
}

std::int64_t KvStorage::bytes(const ModelSpec& spec, std::int64_t positions) {
  std::int64_t per_position = 0;
  for (const LayerSpec& layer : spec.layers) {
    const std::int64_t width = layer.attention.head_dim + layer.attention.value_dim();
    per_position += layer.attention.kv_heads * width * static_cast<std::int64_t>(sizeof(float));
  }
  std::int64_t total = 0;
  return __builtin_mul_overflow(per_position, positions, &total) ? INT64_MAX : total;
}

void KvStorage::move_rows(std::span<const std::int32_t> path) {
  for (int layer = 0; layer < static_cast<int>(layers_.size()); ++layer) {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    for (int head = 0; head < shape.kv_heads; ++head) {
      keep_rows(keys(layer, head), shape.head_dim, path);
      keep_rows(values(layer, head), shape.value_dim, path);
    }
  }
}

void KvStorage::keep_rows(float* rows, int width, std::span<const std::int32_t> path) const {
  const auto floats = static_cast<std::size_t>(width);
  rows += static_cast<std::size_t>(committed()) * floats;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const auto row = static_cast<std::size_t>(path[i]);
    if (row != i) std::memcpy(rows + i * floats, rows + row * floats, floats * sizeof(float));
  }
}

}  // namespace specmoe::nn
