#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/nn/float_buffer.h"
#include "core/nn/model_spec.h"

namespace specmoe::nn {

/// Keys and values of one sequence in float32, [layer][kv head][position][head_dim or value_dim], so that attention
/// streams one head. Staged rows lie behind the committed ones in the order they came; keep() closes the gaps in place.
class KvStorage final : public KVCache {
 public:
  /// owner  the model it belongs to; forward() refuses the caches of others
  KvStorage(const ModelSpec& spec, int capacity, const void* owner);

  int capacity() const override { return capacity_; }
  int committed() const override { return committed_; }
  int staged() const override { return static_cast<int>(depths_.size()); }
  void keep(std::span<const std::int32_t> path) override;
  void truncate(int length) override;

  const void* owner() const { return owner_; }
  /// Appends staged rows; parents as in RowBlock, already checked.
  void stage(std::span<const std::int32_t> parents);
  float* keys(int layer, int kv_head) const {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    return keys_.data() + offset(shape.first_key, kv_head, shape.head_dim);
  }
  float* values(int layer, int kv_head) const {
    const LayerShape& shape = layers_[static_cast<std::size_t>(layer)];
    return values_.data() + offset(shape.first_value, kv_head, shape.value_dim);
  }
  /// Depth of every staged row below the last committed one, counted from 1.
  const std::int32_t* depths() const { return depths_.data(); }
  /// Words of an ancestor mask: ceil(staged() / 64).
  int words() const { return words_; }
  /// Ancestors of staged row `row`, itself included.
  const std::uint64_t* ancestors(int row) const {
    return ancestors_.data() + static_cast<std::size_t>(row) * static_cast<std::size_t>(words_);
  }
  /// Bytes of keys and values that `positions` rows take.
  static std::int64_t bytes(const ModelSpec& spec, std::int64_t positions);

 private:
  struct LayerShape {
    std::size_t first_key = 0;  // floats per position of all earlier layers
    std::size_t first_value = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int value_dim = 0;
  };
  std::size_t offset(std::size_t first, int kv_head, int width) const {
    return (first + static_cast<std::size_t>(kv_head * width)) * static_cast<std::size_t>(capacity_);
  }
  void keep_rows(float* rows, int width, std::span<const std::int32_t> path) const;
  void widen(int words);
  void drop_staged();

  std::vector<LayerShape> layers_;
  int capacity_ = 0;
  const void* owner_ = nullptr;
  int committed_ = 0;
  int words_ = 0;
  std::vector<std::int32_t> depths_;
  std::vector<std::int32_t> parents_;
  std::vector<std::uint64_t> ancestors_;  // [staged, words_]
  FloatBuffer keys_;
  FloatBuffer values_;
};

}  // namespace specmoe::nn
