#pragma once

// Shared by the instruction sets whose tiles are chosen by rows and panels: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Multiplies up to kTileRows rows with the panels of one group; these rows are the `turn`-th of `turns` tiles of it.
/// One tile fetches what it reads next. Of several the first would wait for the memory and the others leave it idle, so
/// each fetches its share of the next group.
template <class From>
void multiply_group(From rows, int count, const PackedMatrix& weight, std::int64_t panel, int panels,
                    const std::byte* ahead, int turn, int turns, float* sums) {
  const int most = tile_panels(count);
  for (int p = 0; p < panels;) {
    const int step = std::min(most, static_cast<int>(std::bit_floor(static_cast<unsigned>(panels - p))));
    const std::size_t offset = static_cast<std::size_t>(p) * weight.panel_bytes();
    const std::byte* from = weight.panel(panel) + offset;
    const std::byte* after = from + static_cast<std::size_t>(step) * weight.panel_bytes();
    if (turns > 1) {
      after = ahead + offset + static_cast<std::size_t>(turn) * weight.panel_bytes() / static_cast<std::size_t>(turns);
    } else if (p + step >= panels) {
      after = ahead;
    }
    choose_tile(weight, count, step)(rows, from, after, turns, weight.panel_bytes(), weight.cols(), sums + p * kPanel);
    p += step;
  }
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
