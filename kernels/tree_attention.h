#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kernel.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// One kv head of one sequence: keys and values of the committed prefix followed by the staged rows of this pass.
/// Position i of the arrays is position i of the text for i < committed; staged row j lies at committed + j.
struct AttentionHead {
  const void* keys = nullptr;    // [committed + staged, head_dim], row stride key_stride
  const void* values = nullptr;  // [committed + staged, value_dim], row stride value_stride
  std::int64_t key_stride = 0;   // elements
  std::int64_t value_stride = 0;
  std::int64_t committed = 0;
  DType dtype = DType::kFloat32;        // of keys and values: float32, bfloat16 or int8
  const float* key_scales = nullptr;    // int8: [committed + staged], by which rows are multiplied
  const float* value_scales = nullptr;  // the same
};

/// A row [n] of keys or values as a cache of this type holds it: rounded to nearest even; int8 as Int8Scale says, with
/// a scale of its own.
///
/// to     [n] elements of dtype
/// scale  written when dtype is int8
void store_cached_row(const float* row, std::int64_t n, DType dtype, void* to, float* scale);

/// What a layer's attention does, the same for every row. A row at position p sees itself and the keys before it that
/// window and chunk leave.
struct AttentionRule {
  std::int64_t head_dim = 0;  // of queries and keys
  std::int64_t value_dim = 0;
  float scale = 1.0f;            // multiplies scores
  std::int64_t window = 0;       // W > 0: only positions > p - W
  std::int64_t chunk = 0;        // C > 0: only positions >= p / C * C
  const float* sinks = nullptr;  // [group] one more score per query head, which adds no value; null: none
};

/// Attention of T new rows over the prefix and over their own ancestors among the staged rows.
///
/// query      [T, group * head_dim]: the query heads that share this kv head, already rotated
/// ancestors  [T, words] bit j of row t: staged row j is an ancestor of row t, or t itself
/// out        [T, group * value_dim]
/// scratch    at least attention_scratch_floats(committed + staged, head_dim) floats, private to the thread
/// A row's keys are the committed ones and then its staged ancestors by depth: its *logical* positions 0, 1, 2, ...
/// Every sum is grouped by logical position alone (chunks and vector lanes start at fixed logical positions), so row
/// t's bits depend neither on T, nor on other rows, nor on whether an ancestor is committed or still staged.
extern Kernel<void(Rows<const float> query, const AttentionHead& head, const std::uint64_t* ancestors,
                   std::int64_t words, const AttentionRule& rule, Rows<float> out, float* scratch)>
    tree_attention;

/// The first logical position that the row of position `end` - 1 sees.
inline std::int64_t first_seen(const AttentionRule& rule, std::int64_t end) {
  const std::int64_t by_window = rule.window > 0 ? std::max<std::int64_t>(0, end - rule.window) : 0;
  const std::int64_t by_chunk = rule.chunk > 0 ? (end - 1) / rule.chunk * rule.chunk : 0;
  return std::max(by_window, by_chunk);
}

std::int64_t attention_scratch_floats(std::int64_t positions, std::int64_t head_dim);

}  // namespace specmoe::kernels
