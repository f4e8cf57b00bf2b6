#pragma once

// The AVX-512 BF16 tiles: see kernels/cpu/avx512_bf16.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// As tile() of simd/tile.h for pairs of bfloat16: every output is one chain of pair products over ascending k,
/// whatever R and P.
template <int R, int P>
void tile(PairRows rows, const std::byte* panel, const std::byte* ahead, std::size_t panel_bytes, std::int64_t inputs,
          float* sums) {
  Floats acc[R][P];
  const std::uint32_t* x[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    x[r] = rows.data + r * rows.stride;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) acc[r][p] = zeros();
  }
  const std::int64_t pairs = (inputs + 1) / 2;
  for (std::int64_t k = 0; k < pairs; ++k, panel += kPanel * 4, ahead += kPanel * 4) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) prefetch(ahead + p * panel_bytes);
    __m512bh weight[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) weight[p] = (__m512bh)load_bits(panel + p * panel_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto input = (__m512bh)_mm512_set1_epi32(static_cast<int>(x[r][k]));
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) acc[r][p] = _mm512_dpbf16_ps(acc[r][p], weight[p], input);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) store(sums + r * kGroupOutputs + p * kPanel, acc[r][p]);
  }
}

using Tile = void (*)(PairRows rows, const std::byte* panel, const std::byte* ahead, std::size_t panel_bytes,
                      std::int64_t inputs, float* sums);

/// How many rows one tile takes, and how many panels a tile of `rows` rows: what the registers hold.
inline constexpr int kTileRows = 8;
constexpr int tile_panels(int rows) { return rows <= 6 ? 4 : 2; }

template <int R>
Tile choose_panels(int panels) {
  if constexpr (tile_panels(R) >= 4) {
    if (panels == 4) return tile<R, 4>;
  }
  return panels == 2 ? tile<R, 2> : tile<R, 1>;
}

inline Tile choose_tile(const PackedMatrix& /*weight*/, int rows, int panels) {
  using Choose = Tile (*)(int panels);
  constexpr Choose kByRows[kTileRows] = {choose_panels<1>, choose_panels<2>, choose_panels<3>, choose_panels<4>,
                                         choose_panels<5>, choose_panels<6>, choose_panels<7>, choose_panels<8>};
  return kByRows[rows - 1](panels);
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
