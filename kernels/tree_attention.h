#pragma once

#include <cstdint>

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// One kv head of one sequence: keys and values of the committed prefix followed by the staged rows of this pass.
/// Position i of the arrays is position i of the text for i < committed; staged row j lies at committed + j.
struct AttentionHead {
  const float* keys = nullptr;    // [committed + staged, head_dim], row stride `stride`
  const float* values = nullptr;  // the same
  std::int64_t stride = 0;
  std::int64_t committed = 0;
};

/// Attention of T new rows over the prefix and over their own ancestors among the staged rows.
///
/// query      [T, group * head_dim]: the query heads that share this kv head, already rotated
/// ancestors  [T, words] bit j of row t: staged row j is an ancestor of row t, or t itself. words = ceil(staged / 64)
/// depth      [T] depth of row t below the last committed token, counted from 1; only read when window > 0
/// window     0: whole prefix. W > 0: a row at position p sees keys at positions > p - W (itself included)
/// staged_depth [staged] depth of every staged row, counted from 1 like `depth`; only read when window > 0
/// scale      multiplies the scores
/// out        [T, group * head_dim]
/// scratch    at least attention_scratch_floats(committed + staged, head_dim) floats, private to the thread
/// A row's keys are the committed ones and then its staged ancestors by depth: its *logical* positions 0, 1, 2, ...
/// Every sum is grouped by logical position alone (chunks and vector lanes start at fixed logical positions), so row
/// t's bits depend neither on T, nor on other rows, nor on whether an ancestor is committed or still staged.
extern Kernel<void(Rows<const float> query, const AttentionHead& head, std::int64_t staged,
                   const std::uint64_t* ancestors, std::int64_t words, const std::int32_t* depth,
                   const std::int32_t* staged_depth, std::int64_t window, float scale, std::int64_t head_dim,
                   Rows<float> out, float* scratch)>
    tree_attention;

std::int64_t attention_scratch_floats(std::int64_t positions, std::int64_t head_dim);

}  // namespace specmoe::kernels
