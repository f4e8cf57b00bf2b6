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

/// What multiply() does with one row on AVX2: panels are read as streams that go on through one panel after another,
/// which the processor's own prefetchers lose only where one ends. kTogether consecutive panels are finished together.
template <int kTogether, class From, class Finish>
void multiply_row(From row, std::int64_t index, const PackedMatrix& weight, std::int64_t begin, std::int64_t end,
                  const Finish& finish) {
  constexpr int kStreams = tile_panels(1);
  alignas(64) float sums[kTogether][kStreams * kPanel];
  alignas(64) float finished[kStreams * kGroupOutputs];
  for (std::int64_t panel = begin; panel < end;) {
    const std::int64_t left = (end - panel) / kTogether;
    const int streams = left >= kStreams ? kStreams : left >= 2 ? 2 : 1;
    const std::int64_t length = left / streams * kTogether;
    const std::size_t stride = static_cast<std::size_t>(length) * weight.panel_bytes();
    const auto run = choose_tile(weight, 1, streams);
    for (const std::int64_t stop = panel + length; panel < stop; panel += kTogether) {
      for (int p = 0; p < kTogether; ++p) {
        const std::byte* from = weight.panel(panel + p);
        run(row, from, from + weight.panel_bytes(), 1, stride, weight.cols(), sums[p]);
      }
      for (int s = 0; s < streams; ++s) {
        float* to = finished + s * kGroupOutputs;
        for (int p = 0; p < kTogether; ++p) std::copy_n(sums[p] + s * kPanel, kPanel, to + p * kPanel);
        finish(index, 1, panel + s * length, kTogether, to);
      }
    }
    panel += (streams - 1) * length;
  }
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
