#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/nn/model_spec.h"
#include "core/nn/staged_cache.h"
#include "kernels/tree_attention.h"

namespace specmoe::nn {

/// Keys and values of one sequence, [layer][kv head][position][head_dim or value_dim], so that attention streams one
/// head. A row is rounded to the cache's type when it is put there, before anything attends to it, its own row
/// included.
class KvStorage final : public StagedCache {
 public:
  /// As StagedCache. Throws Error when it would be more than the machine's memory.
  ///
  /// dtype  float32, bfloat16 or int8: a row of a head has a scale then
  KvStorage(const ModelSpec& spec, kernels::DType dtype, int capacity, const void* owner, int text);

  /// Writes rows of one head from staged row `first_staged` on.
  void put(int layer, int kv_head, int first_staged, kernels::Rows<const float> keys,
           kernels::Rows<const float> values) const;
  kernels::AttentionHead head(int layer, int kv_head) const;
  /// Bytes of keys and values that `positions` rows take.
  static std::int64_t bytes(const ModelSpec& spec, kernels::DType dtype, std::int64_t positions);

 protected:
  void move_rows(std::span<const std::int32_t> path) override;

 private:
  struct LayerShape {
    std::size_t first_head = 0;  // kv heads of all earlier layers
    std::size_t first_key = 0;   // elements per position of all earlier layers
    std::size_t first_value = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int value_dim = 0;
  };
  /// The rows of one head.
  struct HeadRows {
    std::byte* keys;
    std::byte* values;
    float* key_scales;  // null: the type has none
    float* value_scales;
    std::size_t key_bytes;  // of a row
    std::size_t value_bytes;
  };
  HeadRows rows_of(int layer, int kv_head) const;
  /// Moves rows of `bytes` bytes, from staged row path[i] to committed + i.
  void keep_rows(std::byte* rows, std::size_t bytes, std::span<const std::int32_t> path) const;

  std::vector<LayerShape> layers_;
  kernels::DType dtype_;
  // Huge pages: in small ones attention reads long texts at little more than half the speed.
  kernels::AlignedBytes keys_;
  kernels::AlignedBytes values_;
  kernels::AlignedBytes key_scales_;  // floats [layer][kv head][position], int8
  kernels::AlignedBytes value_scales_;
};

}  // namespace specmoe::nn
