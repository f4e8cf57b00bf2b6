#pragma once

#include <cstdint>
#include <functional>

#include "kernels/packed_matrix.h"

namespace specmoe::nn {

// Views of tensors that do not lie in a checkpoint as the engine wants them. They borrow the same memory and expand,
// gather or reorder one row at a time, when it is packed. All of them leave a view without data as it is.

/// Rows [first, first + rows).
kernels::WeightView row_slice(const kernels::WeightView& view, std::int64_t first, std::int64_t rows);

/// From the index in the new order to the one in the old.
using Order = std::function<std::int64_t(std::int64_t)>;
/// `rows` rows of `view`: row i is its row order(i).
kernels::WeightView reorder_rows(const kernels::WeightView& view, std::int64_t rows, Order order);
/// A vector, element i being element order(i) of `view`.
kernels::WeightView reorder_elements(const kernels::WeightView& view, std::int64_t count, Order order);

/// `rows` rows, row i being column order(i) of `view`, which has no read_row.
kernels::WeightView columns(const kernels::WeightView& view, std::int64_t rows, Order order);

/// [rows, cols] in mxfp4 (OCP microscaling): 32 four-bit floats share a power of two.
///
/// blocks  [rows, cols / 32, 16] element 2 b of a block in the low half of byte b, element 2 b + 1 in the high half
/// scales  [rows, cols / 32] exponent plus 127; 255 is not a number
kernels::WeightView mxfp4(const std::byte* blocks, const std::byte* scales, std::int64_t rows, std::int64_t cols);

/// [rows, cols] in float8 (4 bits of exponent, 3 of mantissa, no infinities), times one scale per block.
///
/// scales  float32 [ceil(rows / block_rows), ceil(cols / block_cols)], need not be aligned
kernels::WeightView fp8_blocks(const std::byte* values, const std::byte* scales, std::int64_t rows, std::int64_t cols,
                               std::int64_t block_rows, std::int64_t block_cols);

/// [rows, cols] int8, times one float32 scale per row; scales [rows] need not be aligned. Has read_int8.
kernels::WeightView int8_rows(const std::byte* values, const std::byte* scales, std::int64_t rows, std::int64_t cols);

}  // namespace specmoe::nn
