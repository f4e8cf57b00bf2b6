#pragma once

// Shared by the instruction sets that multiply bfloat16: see kernels/cpu/avx512_bf16.cpp. Comes after a header with
// store_pairs().

namespace specmoe::kernels::SPECMOE_SIMD {

/// Rows of bfloat16 pairs: pair k of row r is data[r * stride + k], inputs 2k and 2k + 1 in its low and high half.
struct PairRows {
  const std::uint32_t* data;
  std::int64_t stride;
};

/// The inputs of a block of rows, rounded to bfloat16 (to nearest even) and padded with zeros to whole vectors. They
/// live on the stack: little enough to stay in the second-level cache, and nothing to allocate.
class Inputs {
 public:
  static std::int64_t most_rows(std::int64_t inputs) {
    const std::int64_t rows = kPairs / stride_of(inputs);
    SPECMOE_CHECK(rows > 0, "bfloat16 products take at most ", 2 * kPairs - 2 * kVectorPairs, " inputs, got ", inputs);
    return std::min<std::int64_t>(64, rows);
  }

  template <class Row>
  void take(const Row& row, std::int64_t first, std::int64_t count, std::int64_t inputs) {
    stride_ = stride_of(inputs);
    for (std::int64_t i = 0; i < count; ++i) round(row(first + i), inputs, pairs_ + i * stride_);
  }
  PairRows from(std::int64_t row) const { return {pairs_ + row * stride_, stride_}; }

 private:
  static constexpr std::int64_t kVectorPairs = 16;
  static constexpr std::int64_t kPairs = 64 * (1024 + kVectorPairs);  // 64 rows of 2048 inputs, 32 of 4096: 260 KiB

  /// One vector more than the inputs fill, so that rows of a power of two do not fall on the same cache sets.
  static std::int64_t stride_of(std::int64_t inputs) {
    return ((inputs + 2 * kVectorPairs - 1) / (2 * kVectorPairs) + 1) * kVectorPairs;
  }

  static void round(const float* x, std::int64_t inputs, std::uint32_t* to) {
    for (std::int64_t k = 0; k < inputs; k += 2 * kWidth, to += kWidth) {
      const std::int64_t left = inputs - k;
      const Floats low = left >= kWidth ? load(x + k) : load_first(x + k, left);
      const Floats high = left >= 2 * kWidth ? load(x + k + kWidth)
                          : left > kWidth    ? load_first(x + k + kWidth, left - kWidth)
                                             : zeros();
      store_pairs(to, low, high);
    }
  }

  std::int64_t stride_ = 0;
  alignas(64) std::uint32_t pairs_[kPairs];
};

}  // namespace specmoe::kernels::SPECMOE_SIMD
