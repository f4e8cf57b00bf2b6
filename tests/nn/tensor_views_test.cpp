#include "core/nn/tensor_views.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

namespace specmoe::nn {
namespace {

using kernels::DType;
using kernels::PackedMatrix;
using kernels::WeightView;

/// 0, 1, 2, ... as [rows, cols].
struct Counted {
  Counted(std::int64_t rows, std::int64_t cols) : values(static_cast<std::size_t>(rows * cols)) {
    std::iota(values.begin(), values.end(), 0.0F);
    view = {values.data(), DType::kFloat32, rows, cols, {}};
  }
  std::vector<float> values;
  WeightView view;
};

TEST(TensorViews, SlicesAndReordersRows) {
  const Counted source(5, 3);
  const WeightView middle = row_slice(source.view, 1, 3);
  EXPECT_EQ(middle.rows, 3);
  EXPECT_EQ(middle.row(2), (std::vector<float>{9, 10, 11}));
  const WeightView backwards = reorder_rows(middle, 3, [](std::int64_t row) { return 2 - row; });
  EXPECT_EQ(backwards.row(0), (std::vector<float>{9, 10, 11}));
  EXPECT_EQ(row_slice(backwards, 1, 2).row(1), (std::vector<float>{3, 4, 5}));
  const WeightView odd = reorder_elements(row_slice(source.view, 4, 1), 1, [](std::int64_t i) { return 2 * i + 1; });
  EXPECT_EQ(odd.row(0), (std::vector<float>{13}));
}

TEST(TensorViews, PacksColumns) {
  const Counted source(4, 6);
  const WeightView even = columns(source.view, 3, [](std::int64_t row) { return 2 * row; });
  EXPECT_EQ(even.cols, 4);
  EXPECT_EQ(even.row(1), (std::vector<float>{2, 8, 14, 20}));
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    PackedMatrix packed(3, 4, dtype, kernels::Backend::kScalar);
    packed.pack_rows(even);
    EXPECT_EQ(packed.at(2, 3), 22.0F);
  }
}

TEST(TensorViews, LeavesNothingAsItIs) {
  const auto same = [](std::int64_t i) { return i; };
  EXPECT_EQ(row_slice({}, 1, 2).data, nullptr);
  EXPECT_EQ(reorder_rows({}, 2, same).data, nullptr);
  EXPECT_EQ(reorder_elements({}, 2, same).data, nullptr);
  EXPECT_EQ(columns({}, 2, same).data, nullptr);
}

// Two rows of two blocks. Byte b of the first block holds nibbles b (low) and 15 - b (high).
TEST(TensorViews, ExpandsMxfp4) {
  std::vector<std::byte> blocks(2 * 2 * 16, std::byte{0x42});  // 2 and 1
  for (unsigned b = 0; b < 16; ++b) blocks[b] = static_cast<std::byte>((15 - b) << 4 | b);
  const std::vector<std::byte> scales = {std::byte{127}, std::byte{128}, std::byte{120}, std::byte{255}};
  const WeightView view = mxfp4(blocks.data(), scales.data(), 2, 64);
  const std::vector<float> values = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  const std::vector<float> first = view.row(0);
  for (std::size_t b = 0; b < 16; ++b) {
    const auto value = [&](std::size_t nibble) { return nibble < 8 ? values[nibble] : -values[nibble - 8]; };
    EXPECT_EQ(first[2 * b], value(b));
    EXPECT_EQ(first[2 * b + 1], value(15 - b));
  }
  EXPECT_EQ(first[32], 2.0F);  // 1 * 2
  EXPECT_EQ(first[33], 4.0F);
  EXPECT_EQ(view.row(1)[0], 1.0F / 128);
  EXPECT_TRUE(std::isnan(view.row(1)[63]));
}

// Bit patterns with values from the format's definition (E4M3, OCP 8-bit floats).
TEST(TensorViews, ExpandsFp8Blocks) {
  const std::vector<std::byte> values = {std::byte{0x38}, std::byte{0x7e}, std::byte{0x01}, std::byte{0xb8},
                                         std::byte{0x08}, std::byte{0x7f}, std::byte{0x00}, std::byte{0x80},
                                         std::byte{0x39}, std::byte{0x38}, std::byte{0x38}, std::byte{0x38}};
  const std::vector<float> scales = {1, 2, 4, 8};  // blocks of 2 x 3 over [3, 4]
  std::vector<std::byte> bytes(1 + scales.size() * sizeof(float));
  std::memcpy(bytes.data() + 1, scales.data(), bytes.size() - 1);  // unaligned
  const WeightView view = fp8_blocks(values.data(), bytes.data() + 1, 3, 4, 2, 3);
  EXPECT_EQ(view.row(0), (std::vector<float>{1, 448, 0x1p-9F, -2}));
  EXPECT_EQ(view.row(1)[0], 0x1p-6F);
  EXPECT_TRUE(std::isnan(view.row(1)[1]));
  EXPECT_TRUE(view.row(1)[2] == 0 && !std::signbit(view.row(1)[2]) && std::signbit(view.row(1)[3]));
  EXPECT_EQ(view.row(2), (std::vector<float>{4.5, 4, 4, 8}));
}

TEST(TensorViews, PacksInt8RowsAsTheyAre) {
  const std::vector<std::int8_t> values = {127, -5, 0, 1, 2, 100};
  const std::vector<float> scales = {0.25F, 3};  // the second row would be rounded to other numbers
  std::vector<std::byte> bytes(1 + scales.size() * sizeof(float));
  std::memcpy(bytes.data() + 1, scales.data(), bytes.size() - 1);  // unaligned
  const auto* data = reinterpret_cast<const std::byte*>(values.data());
  const WeightView view = int8_rows(data, bytes.data() + 1, 2, 3);
  EXPECT_EQ(view.row(0), (std::vector<float>{31.75, -1.25, 0}));
  const WeightView swapped = reorder_rows(view, 2, [](std::int64_t row) { return 1 - row; });
  EXPECT_EQ(swapped.row(0), (std::vector<float>{3, 6, 300}));
  kernels::PackedMatrix packed(2, 3, kernels::DType::kInt8, kernels::Backend::kScalar);
  packed.pack_rows(swapped);
  for (std::int64_t row = 0; row < 2; ++row) {
    for (std::int64_t col = 0; col < 3; ++col) EXPECT_EQ(packed.at(row, col), swapped.row(row)[col]);
  }
}

}  // namespace
}  // namespace specmoe::nn
