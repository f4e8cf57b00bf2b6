#pragma once

// Shared by the instruction sets whose tiles are chosen by rows and panels: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Multiplies up to kTileRows rows with the panels of one group.
template <class From>
void multiply_group(From rows, int count, const PackedMatrix& weight, std::int64_t panel, int panels,
                    const std::byte* ahead, float* sums) {
  const int most = tile_panels(count);
  for (int p = 0; p < panels;) {
    const int step = std::min(most, static_cast<int>(std::bit_floor(static_cast<unsigned>(panels - p))));
    const std::size_t offset = static_cast<std::size_t>(p) * weight.panel_bytes();
    const std::byte* from = weight.panel(panel) + offset;
    const std::byte* after = p + step < panels ? from + static_cast<std::size_t>(step) * weight.panel_bytes() : ahead;
    choose_tile(weight, count, step)(rows, from, after, weight.panel_bytes(), weight.cols(), sums + p * kPanel);
    p += step;
  }
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
