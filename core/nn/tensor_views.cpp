#include "core/nn/tensor_views.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace specmoe::nn {

using kernels::WeightView;

namespace {

/// A view whose rows come from a function; `data` only says that there is something.
WeightView computed(const void* data, std::int64_t rows, std::int64_t cols,
                    std::function<void(std::int64_t, float*)> read_row) {
  WeightView view;
  if (data == nullptr) return view;
  view.data = data;
  view.rows = rows;
  view.cols = cols;
  view.read_row = std::move(read_row);
  return view;
}

float float8_value(int bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  const float sign = (bits & 0x80) != 0 ? -1.0F : 1.0F;
  if (exponent == 15 && mantissa == 7) return NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

const std::array<float, 256>& float8_values() {
  static const auto values = [] {
    std::array<float, 256> table{};
    for (int bits = 0; bits < 256; ++bits) table[static_cast<std::size_t>(bits)] = float8_value(bits);
    return table;
  }();
  return values;
}

}  // namespace

WeightView row_slice(const WeightView& view, std::int64_t first, std::int64_t rows) {
  if (view.data == nullptr) return view;
  if (view.read_row) return reorder_rows(view, rows, [first](std::int64_t row) { return first + row; });
  WeightView part = view;
  const auto offset = static_cast<std::size_t>(first * view.cols) * kernels::dtype_bytes(view.dtype);
  part.data = static_cast<const std::byte*>(view.data) + offset;
  part.rows = rows;
  return part;
}

WeightView reorder_rows(const WeightView& view, std::int64_t rows, Order order) {
  WeightView reordered = computed(view.data, rows, view.cols, [view, order](std::int64_t row, float* out) {
    std::ranges::copy(view.row(order(row)), out);
  });
  if (!view.read_int8) return reordered;
  reordered.read_int8 = [view, order = std::move(order)](std::int64_t row, std::int8_t* out) {
    return view.read_int8(order(row), out);
  };
  return reordered;
}

WeightView reorder_elements(const WeightView& view, std::int64_t count, Order order) {
  return computed(view.data, 1, count, [view, count, order = std::move(order)](std::int64_t row, float* out) {
    const std::vector<float> values = view.row(row);
    for (std::int64_t i = 0; i < count; ++i) out[i] = values[static_cast<std::size_t>(order(i))];
  });
}

WeightView columns(const WeightView& view, std::int64_t rows, Order order) {
  return computed(view.data, rows, view.rows, [view, order = std::move(order)](std::int64_t row, float* out) {
    const std::int64_t column = order(row);
    for (std::int64_t i = 0; i < view.rows; ++i) out[i] = view.element(i, column);
  });
}

WeightView mxfp4(const std::byte* blocks, const std::byte* scales, std::int64_t rows, std::int64_t cols) {
  return computed(blocks, rows, cols, [blocks, scales, cols](std::int64_t row, float* out) {
    constexpr std::int64_t kBlock = 32;
    static constexpr float kValues[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                          -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};
    for (std::int64_t b = 0; b < cols / kBlock; ++b, out += kBlock) {
      const std::int64_t block = row * (cols / kBlock) + b;
      const int exponent = std::to_integer<int>(scales[block]);
      const float scale = exponent == 255 ? NAN : std::ldexp(1.0F, exponent - 127);
      for (std::int64_t i = 0; i < kBlock / 2; ++i) {
        const auto pair = std::to_integer<unsigned>(blocks[block * kBlock / 2 + i]);
        out[2 * i] = kValues[pair & 15U] * scale;
        out[2 * i + 1] = kValues[pair >> 4] * scale;
      }
    }
  });
}

WeightView fp8_blocks(const std::byte* values, const std::byte* scales, std::int64_t rows, std::int64_t cols,
                      std::int64_t block_rows, std::int64_t block_cols) {
  const std::int64_t blocks = (cols + block_cols - 1) / block_cols;
  return computed(values, rows, cols, [=](std::int64_t row, float* out) {
    const std::array<float, 256>& table = float8_values();
    for (std::int64_t col = 0; col < cols; ++col) {
      float scale = 0;
      const std::int64_t block = row / block_rows * blocks + col / block_cols;
      std::memcpy(&scale, scales + block * static_cast<std::int64_t>(sizeof(float)), sizeof(float));
      out[col] = table[std::to_integer<std::size_t>(values[row * cols + col])] * scale;
    }
  });
}

WeightView int8_rows(const std::byte* values, const std::byte* scales, std::int64_t rows, std::int64_t cols) {
  const auto scale_of = [scales](std::int64_t row) {
    float scale = 0;
    std::memcpy(&scale, scales + row * static_cast<std::int64_t>(sizeof(float)), sizeof(float));
    return scale;
  };
  WeightView view = computed(values, rows, cols, [=](std::int64_t row, float* out) {
    const float scale = scale_of(row);
    for (std::int64_t col = 0; col < cols; ++col) {
      out[col] = static_cast<float>(static_cast<std::int8_t>(values[row * cols + col])) * scale;
    }
  });
  view.read_int8 = [=](std::int64_t row, std::int8_t* out) {
    std::memcpy(out, values + row * cols, static_cast<std::size_t>(cols));
    return scale_of(row);
  };
  return view;
}

}  // namespace specmoe::nn
