#include "core/nn/kv_storage.h"

#include <algorithm>
#include <cstring>

#include "core/nn/memory_table.h"
#include "kernels/check.h"

namespace specmoe::nn {

KvStorage::KvStorage(const ModelSpec& spec, int capacity, const void* owner) : capacity_(capacity), owner_(owner) {
  SPECMOE_CHECK(capacity >= 1, "KV cache: capacity must be at least 1, got ", capacity);
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

void KvStorage::stage(std::span<const std::int32_t> parents) {
  const auto total = depths_.size() + parents.size();
  widen(static_cast<int>((total + 63) / 64));
  const auto words = static_cast<std::size_t>(words_);
  ancestors_.resize(total * words);
  for (const std::int32_t parent : parents) {
    const std::size_t row = depths_.size();
    std::uint64_t* mask = ancestors_.data() + row * words;
    if (parent < 0) {
      std::fill(mask, mask + words, 0);
    } else {
      std::copy_n(ancestors(parent), words, mask);
    }
    mask[row / 64] |= std::uint64_t{1} << (row % 64);
    depths_.push_back(parent < 0 ? 1 : depths_[static_cast<std::size_t>(parent)] + 1);
    parents_.push_back(parent);
  }
}

/// Lays the masks out again with `words` words each, last row first so that none is overwritten before it moves.
void KvStorage::widen(int words) {
  if (words <= words_) return;
  const auto from = static_cast<std::size_t>(words_);
  const auto to = static_cast<std::size_t>(words);
  ancestors_.resize(depths_.size() * to);
  for (std::size_t row = depths_.size(); row-- > 0;) {
    std::uint64_t* target = ancestors_.data() + row * to;
    std::memmove(target, ancestors_.data() + row * from, from * sizeof(std::uint64_t));
    std::fill(target + from, target + to, 0);
  }
  words_ = words;
}

void KvStorage::keep(std::span<const std::int32_t> path) {
  std::int32_t parent = -1;
  for (const std::int32_t row : path) {
    SPECMOE_CHECK(row >= 0 && row < staged(), "KV cache: cannot keep staged row ", row, " of ", staged());
    SPECMOE_CHECK(parents_[static_cast<std::size_t>(row)] == parent, "KV cache: staged row ", row, " hangs on row ",
                  parents_[static_cast<std::size_t>(row)], ", so it cannot be kept after row ", parent);
    parent = row;
  }
  for (int layer = 0; layer < static_cast<int>(layers_.size()); ++layer) {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    for (int head = 0; head < shape.kv_heads; ++head) {
      keep_rows(keys(layer, head), shape.head_dim, path);
      keep_rows(values(layer, head), shape.value_dim, path);
    }
  }
  committed_ += static_cast<int>(path.size());
  drop_staged();
}

void KvStorage::keep_rows(float* rows, int width, std::span<const std::int32_t> path) const {
  const auto floats = static_cast<std::size_t>(width);
  rows += static_cast<std::size_t>(committed_) * floats;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const auto row = static_cast<std::size_t>(path[i]);
    if (row != i) std::memcpy(rows + i * floats, rows + row * floats, floats * sizeof(float));
  }
}

void KvStorage::truncate(int length) {
  SPECMOE_CHECK(length >= 0 && length <= committed_, "KV cache: cannot cut ", committed_, " committed rows to ",
                length);
  committed_ = length;
  drop_staged();
}

void KvStorage::drop_staged() {
  depths_.clear();
  parents_.clear();
  ancestors_.clear();
  words_ = 0;
}

}  // namespace specmoe::nn
