#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/nn/model_spec.h"
#include "kernels/tree_attention.h"

namespace specmoe::nn {

/// Keys and values of one sequence, [layer][kv head][position][head_dim or value_dim], so that attention streams one
/// head. Staged rows lie behind the committed ones in the order they came; keep() closes the gaps in place. A row is
/// rounded to the cache's type when it is put there, before anything attends to it, its own row included.
class KvStorage final : public KVCache {
 public:
  /// dtype  float32, bfloat16 or int8: a row of a head has a scale then
  /// owner  the model it belongs to; forward() refuses the caches of others
  /// text   tokens of the longest text meant for it
  KvStorage(const ModelSpec& spec, kernels::DType dtype, int capacity, const void* owner, int text);

  int capacity() const override { return capacity_; }
  int committed() const override { return committed_; }
  int staged() const override { return static_cast<int>(depths_.size()); }
  void keep(std::span<const std::int32_t> path) override;
  void truncate(int length) override;

  const void* owner() const { return owner_; }
  int text() const { return text_; }
  /// Appends staged rows; parents as in RowBlock, already checked.
  void stage(std::span<const std::int32_t> parents);
  /// Writes rows of one head from staged row `first_staged` on.
  void put(int layer, int kv_head, int first_staged, kernels::Rows<const float> keys,
           kernels::Rows<const float> values) const;
  kernels::AttentionHead head(int layer, int kv_head) const;
  /// Depth of every staged row below the last committed one, counted from 1.
  const std::int32_t* depths() const { return depths_.data(); }
  /// Words of an ancestor mask: ceil(staged() / 64).
  int words() const { return words_; }
  /// Ancestors of staged row `row`, itself included.
  const std::uint64_t* ancestors(int row) const {
    return ancestors_.data() + static_cast<std::size_t>(row) * static_cast<std::size_t>(words_);
  }
  /// Bytes of keys and values that `positions` rows take.
  static std::int64_t bytes(const ModelSpec& spec, kernels::DType dtype, std::int64_t positions);

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
  void widen(int words);
  void drop_staged();

  std::vector<LayerShape> layers_;
  kernels::DType dtype_;
  int capacity_ = 0;
  const void* owner_ = nullptr;
  int text_ = 0;
  int committed_ = 0;
  int words_ = 0;
  std::vector<std::int32_t> depths_;
  std::vector<std::int32_t> parents_;
  std::vector<std::uint64_t> ancestors_;  // [staged, words_]
  // Huge pages: in small ones attention reads long texts at little more than half the speed.
  kernels::AlignedBytes keys_;
  kernels::AlignedBytes values_;
  kernels::AlignedBytes key_scales_;  // floats [layer][kv head][position], int8
  kernels::AlignedBytes value_scales_;
};

}  // namespace specmoe::nn
