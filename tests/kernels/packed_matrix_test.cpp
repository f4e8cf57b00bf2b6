#include "kernels/packed_matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tests/support/kernel_data.h"

namespace specmoe::kernels {
namespace {

float bfloat16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

TEST(PackedMatrixTest, HoldsWhatWasPackedAndZerosElsewhere) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const std::int64_t rows : {1, 16, 37}) {
      for (const std::int64_t cols : {1, 2, 33}) {
        std::vector<float> values(static_cast<std::size_t>(rows * cols));
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251) - 100.0f;  // bf16-exact
        PackedMatrix matrix(rows, cols, dtype, Backend::kScalar);
        matrix.pack_rows(weight_view(values, rows, cols));
        std::vector<float> row(static_cast<std::size_t>(cols));
        std::size_t nonzero = 0;
        for (std::int64_t n = 0; n < rows; ++n) {
          matrix.read_row(n, row.data());
          for (std::int64_t k = 0; k < cols; ++k) {
            EXPECT_EQ(matrix.at(n, k), values[n * cols + k]);
            EXPECT_EQ(row[k], values[n * cols + k]);
            nonzero += values[n * cols + k] != 0 ? 1 : 0;
          }
        }
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(matrix.panel(0)) % 64, 0u);
        EXPECT_EQ(matrix.panel_bytes() % 64, 0u);
        const std::size_t width = dtype_bytes(dtype);
        for (std::size_t i = 0; i < matrix.bytes(); i += width) {
          std::uint32_t bits = 0;
          std::memcpy(&bits, matrix.panel(0) + i, width);
          nonzero -= bits != 0 ? 1 : 0;
        }
        EXPECT_EQ(nonzero, 0u) << "padding is not zero";
      }
    }
  }
}

TEST(PackedMatrixTest, RoundsToNearestEven) {
  // Halfway cases go to the even neighbour, the smallest step past halfway goes up.
  const std::vector<std::uint32_t> from = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff,
                                           0xbf808000, 0x7f800000, 0x00008000, 0x00018000};
  const std::vector<std::uint16_t> to = {0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0xbf80, 0x7f80, 0x0000, 0x0002};
  std::vector<float> values;
  for (const std::uint32_t bits : from) values.push_back(std::bit_cast<float>(bits));
  values.push_back(NAN);
  const auto count = static_cast<std::int64_t>(values.size());
  PackedMatrix matrix(1, count, DType::kBFloat16, Backend::kScalar);
  matrix.pack_rows(weight_view(values, 1, count));
  for (std::size_t i = 0; i < to.size(); ++i) {
    EXPECT_EQ(matrix.at(0, static_cast<std::int64_t>(i)), bfloat16(to[i])) << std::hex << from[i];
  }
  EXPECT_TRUE(std::isnan(matrix.at(0, count - 1)));
}

TEST(PackedMatrixTest, ReadsHalfTypesFromAnyAddress) {
  // 1, -2, 65504, smallest subnormal, largest subnormal, infinity
  const std::vector<std::uint16_t> half = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x7c00};
  const std::vector<float> expected = {1, -2, 65504, 0x1p-24f, 0x1p-14f - 0x1p-24f, INFINITY};
  std::vector<char> bytes(half.size() * 2 + 1);
  std::memcpy(bytes.data() + 1, half.data(), half.size() * 2);
  PackedMatrix matrix(2, 3, DType::kFloat32, Backend::kScalar);
  matrix.pack_rows({bytes.data() + 1, DType::kFloat16, 2, 3});
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(matrix.at(i / 3, i % 3), expected[i]);
  const std::vector<std::uint16_t> brain = {0x3f80, 0xc000, 0x4780};
  std::memcpy(bytes.data() + 1, brain.data(), brain.size() * 2);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    PackedMatrix row(1, 3, dtype, Backend::kScalar);
    row.pack_rows({bytes.data() + 1, DType::kBFloat16, 1, 3});
    for (std::int64_t i = 0; i < 3; ++i) EXPECT_EQ(row.at(0, i), bfloat16(brain[i]));
  }
}

TEST(PackedMatrixTest, Int8RoundsEveryOutputByItsOwnScale) {
  // Row 0 has the scale 1, row 1 the scale 2; halves go to the even neighbour.
  const std::vector<float> values = {127, -127, 0.5f, 1.5f, -2.5f, 254, 3, -3, 0, 252.9f};
  PackedMatrix matrix(2, 5, DType::kInt8, Backend::kScalar);
  matrix.pack_rows(weight_view(values, 2, 5));
  const std::vector<float> expected = {127, -127, 0, 2, -2, 254, 4, -4, 0, 252};
  for (std::int64_t i = 0; i < 10; ++i) EXPECT_EQ(matrix.at(i / 5, i % 5), expected[i]) << i;
  EXPECT_EQ(matrix.panel_bytes(), 6u * 16 + 16 * sizeof(float));
}

TEST(PackedMatrixTest, Int8KeepsZerosAndShowsWhatIsNotFinite) {
  const std::vector<float> values = {0, 0, 1, NAN, -INFINITY, 1, 1e-40f, 0};
  PackedMatrix matrix(4, 2, DType::kInt8, Backend::kScalar);
  matrix.pack_rows(weight_view(values, 4, 2));
  for (std::int64_t k = 0; k < 2; ++k) {
    EXPECT_EQ(matrix.at(0, k), 0.0f);
    EXPECT_TRUE(std::isnan(matrix.at(1, k)) && std::isnan(matrix.at(2, k)));
    EXPECT_EQ(matrix.at(3, k), 0.0f);
  }
}

TEST(PackedMatrixTest, Float16IsExact) {
  const std::vector<std::uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x8001, 0x0000, 0x7c00};
  const std::vector<float> expected = {1, -2, 0x1p-24f, 1023 * 0x1p-24f, 65504, -0x1p-24f, 0, INFINITY};
  PackedMatrix matrix(1, 8, DType::kFloat32, Backend::kScalar);
  matrix.pack_rows({half.data(), DType::kFloat16, 1, 8, {}});
  for (std::int64_t k = 0; k < 8; ++k) EXPECT_EQ(matrix.at(0, k), expected[k]);
}

TEST(PackedMatrixTest, StacksSourcesAtAnyRow) {
  const std::vector<float> first = random_floats(5 * 4, 1), second = random_floats(20 * 4, 2);
  PackedMatrix matrix(25, 4, DType::kFloat32, Backend::kScalar);
  matrix.pack_rows(weight_view(first, 5, 4));
  matrix.pack_rows(weight_view(second, 20, 4), 5);
  for (std::int64_t n = 0; n < 25; ++n) {
    for (std::int64_t k = 0; k < 4; ++k) EXPECT_EQ(matrix.at(n, k), n < 5 ? first[n * 4 + k] : second[(n - 5) * 4 + k]);
  }
}

TEST(PackedMatrixTest, InterleavesGateAndUpByPanel) {
  const std::vector<float> gate = random_floats(20 * 3, 1), up = random_floats(20 * 3, 2);
  PackedMatrix matrix(64, 3, DType::kFloat32, Backend::kScalar);
  matrix.pack_gate_up(weight_view(gate, 20, 3), weight_view(up, 20, 3));
  for (std::int64_t i = 0; i < 32; ++i) {
    for (std::int64_t k = 0; k < 3; ++k) {
      EXPECT_EQ(matrix.at(i / 16 * 32 + i % 16, k), i < 20 ? gate[i * 3 + k] : 0.0f);
      EXPECT_EQ(matrix.at(i / 16 * 32 + 16 + i % 16, k), i < 20 ? up[i * 3 + k] : 0.0f);
    }
  }
}

TEST(AllocateAlignedTest, GivesZeroedMemoryOfEverySizeAndTakesItBackInAnyOrder) {
  std::vector<AlignedBytes> held;
  std::vector<std::size_t> sizes;
  for (int round = 0; round < 60; ++round) {
    const std::size_t size = std::size_t{1} << (round % 25);
    sizes.push_back(size);
    held.push_back(allocate_aligned(size));
    std::byte* memory = held.back().get();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 64, 0u);
    EXPECT_EQ(std::count(memory, memory + size, std::byte{0}), static_cast<std::ptrdiff_t>(size));
    std::memset(memory, round + 1, size);
    if (round % 3 == 2) {
      const auto gone = static_cast<std::ptrdiff_t>(held.size() / 2);
      held.erase(held.begin() + gone);
      sizes.erase(sizes.begin() + gone);
    }
  }
  for (std::size_t i = 0; i < held.size(); ++i) {
    const std::byte* memory = held[i].get();
    EXPECT_EQ(std::count(memory, memory + sizes[i], memory[0]), static_cast<std::ptrdiff_t>(sizes[i]));
  }
}

TEST(PackedMatrixTest, RefusesWrongShapes) {
  PackedMatrix matrix(32, 4, DType::kFloat32, Backend::kScalar);
  const std::vector<float> values(200);
  EXPECT_THROW(matrix.pack_rows(weight_view(values, 32, 5)), Error);
  EXPECT_THROW(matrix.pack_rows(weight_view(values, 32, 4), 1), Error);
  EXPECT_THROW(matrix.pack_rows(weight_view(values, 1, 4), -1), Error);
  EXPECT_THROW(matrix.pack_gate_up(weight_view(values, 17, 4), weight_view(values, 17, 4)), Error);
  EXPECT_THROW(matrix.pack_gate_up(weight_view(values, 16, 4), weight_view(values, 15, 4)), Error);
  EXPECT_THROW(PackedMatrix(4, 4, DType::kFloat16, Backend::kScalar), Error);
  EXPECT_THROW(PackedMatrix(-1, 4, DType::kFloat32, Backend::kScalar), Error);
}

}  // namespace
}  // namespace specmoe::kernels
