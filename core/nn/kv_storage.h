#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/nn/float_buffer.h"
#include "core/nn/model_spec.h"
#include "core/nn/staged_cache.h"

namespace specmoe::nn {

/// Keys and values of one sequence in float32, [layer][kv head][position][head_dim or value_dim], so that attention
/// streams one head.
class KvStorage final : public StagedCache {
 public:
  /// As StagedCache. Throws Error when it would be more than the machine's memory.
  KvStorage(const ModelSpec& spec, int capacity, const void* owner, int text);

  float* keys(int layer, int kv_head) const {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    return keys_.data() + offset(shape.first_key, kv_head, shape.head_dim);
  }
  float* values(int layer, int kv_head) const {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    return values_.data() + offset(shape.first_value, kv_head, shape.value_dim);
  }
  /// Bytes of keys and values that `positions` rows take.
  static std::int64_t bytes(const ModelSpec& spec, std::int64_t positions);

 protected:
  void move_rows(std::span<const std::int32_t> path) override;

 private:
  struct LayerShape {
    std::size_t first_key = 0;  // floats per position of all earlier layers
    std::size_t first_value = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int value_dim = 0;
  };
  std::size_t offset(std::size_t first, int kv_head, int width) const {
    return (first + static_cast<std::size_t>(kv_head * width)) * static_cast<std::size_t>(capacity());
  }
  void keep_rows(float* rows, int width, std::span<const std::int32_t> path) const;

  std::vector<LayerShape> layers_;
  FloatBuffer keys_;
  FloatBuffer values_;
};

}  // namespace specmoe::nn
