#pragma once

// Shared by every instruction set: see kernels/cpu/avx2.cpp. Comes after a header with Inputs, kTileRows and
// multiply_group().

namespace specmoe::kernels::SPECMOE_SIMD {

/// What was measured on AVX2 alone, and is done there alone.
inline constexpr bool kAvx2Tiles = kTileRows == 5;

/// How many of `left` rows the next tile takes: as even as can be. Of AVX2's tiles, those of five and of three rows
/// keep the multipliers busier than those of four, whose eight sums only just cover the latency of a multiply-add; but
/// not with int8, whose widening fills the gaps.
inline int rows_of_next_tile(std::int64_t left, DType dtype) {
  if (kAvx2Tiles && left >= 8 && dtype != DType::kInt8) return kTileRows;
  const std::int64_t tiles = (left + kTileRows - 1) / kTileRows;
  return static_cast<int>((left + tiles - 1) / tiles);
}

/// How many tiles that makes of `rows` rows.
inline int tiles_of(std::int64_t rows, DType dtype) {
  int tiles = 0;
  for (; rows > 0; rows -= rows_of_next_tile(rows, dtype)) ++tiles;
  return tiles;
}

/// How many panels of `weight` are multiplied together with `rows` rows: four streams from memory, or as many as a tile
/// takes, which for one or two rows of bfloat16 are eight and read Zen 4's memory up to 9 % faster; and eight where
/// panels are so short that the start of each product costs more.
inline int group_panels(const PackedMatrix& weight, std::int64_t rows) {
  if (weight.panel_bytes() <= 4096) return kMostPanels;
  return std::max(4, tile_panels(static_cast<int>(std::min<std::int64_t>(rows, kTileRows))));
}

/// Products of `count` input rows with panels [begin, end) of `weight`: for every block of rows and group of panels,
/// finish(first row, rows, first panel, panels, sums) with sums[r * kGroupOutputs + p * 16 + j] the product of the
/// r-th of those rows with output j of the p-th of those panels. Groups come in any order; they begin at a multiple of
/// kTogether panels from `begin`, and so many are never parted.
///
/// row(i)  pointer to input row i
/// next    weights that will be read after these, or null
template <int kTogether = 1, class Row, class Finish>
void multiply(std::int64_t count, const Row& row, const PackedMatrix& weight, std::int64_t begin, std::int64_t end,
              const std::byte* next, const Finish& finish) {
  alignas(64) float sums[kTileRows * kGroupOutputs];
  Inputs inputs;
  const std::int64_t block_rows = Inputs::most_rows(weight.cols());
  for (std::int64_t block = 0; block < count; block += block_rows) {
    const std::int64_t block_end = std::min(count, block + block_rows);
    inputs.take(row, block, block_end - block, weight.cols());
    if constexpr (kAvx2Tiles) {
      // Not int8, which its tiles fetch, nor short panels, where every part costs more than it saves.
      if (block_end - block == 1 && weight.dtype() != DType::kInt8 && group_panels(weight, 1) < kMostPanels) {
        multiply_row<kTogether>(inputs.from(0), block, weight, begin, end, finish);
        continue;
      }
    }
    // Two long panels stay in the first caches while the tiles take turns at them.
    const bool shared = kAvx2Tiles && block_end - block > kTileRows && weight.panel_bytes() > 8192;
    const int turns = shared ? tiles_of(block_end - block, weight.dtype()) : 1;
    const int group = shared ? 2 : group_panels(weight, block_end - block);
    for (std::int64_t panel = begin; panel < end; panel += group) {
      const int panels = static_cast<int>(std::min<std::int64_t>(group, end - panel));
      const std::byte* last_ahead = next != nullptr ? next : weight.panel(panel);
      const std::byte* ahead = panel + group < end ? weight.panel(panel + group) : last_ahead;
      int turn = 0;
      for (std::int64_t first = block; first < block_end; ++turn) {
        const int taken = rows_of_next_tile(block_end - first, weight.dtype());
        multiply_group(inputs.from(first - block), taken, weight, panel, panels, ahead, turn, turns, sums);
        finish(first, taken, panel, panels, sums);
        first += taken;
      }
    }
  }
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
