#pragma once

// The AVX-512 BF16 tiles: see kernels/cpu/avx512_bf16.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Sixteen pairs of bfloat16: as they are, or made of int8, which bfloat16 holds exactly.
template <DType kType>
__m512bh load_pairs(const std::byte* p) {
  if constexpr (kType == DType::kBFloat16) return (__m512bh)load_bits(p);
  return widen_int8_line(p);
}

/// As tile() of simd/tile.h for pairs of bfloat16: every output is one chain of pair products over ascending k,
/// whatever R and P.
template <DType kType, int R, int P>
void tile(PairRows rows, const std::byte* panel, const std::byte* ahead, int shares, std::size_t panel_bytes,
          std::int64_t inputs, float* sums) {
  Floats acc[R][P];
  const std::uint32_t* x[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    x[r] = rows.data + r * rows.stride;
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) acc[r][p] = zeros();
  }
  const std::int64_t pairs = (inputs + 1) / 2;
  constexpr int kLoad = kPanel * (kType == DType::kInt8 ? 2 : 4);
  const int fetched = kLoad / shares;
  for (std::int64_t k = 0; k < pairs; ++k, panel += kLoad, ahead += fetched) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) prefetch(ahead + p * panel_bytes);
    __m512bh weight[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) weight[p] = load_pairs<kType>(panel + p * panel_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto input = (__m512bh)_mm512_set1_epi32(static_cast<int>(x[r][k]));
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) acc[r][p] = _mm512_dpbf16_ps(acc[r][p], weight[p], input);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      if constexpr (kType == DType::kInt8) {
        acc[r][p] = mul(acc[r][p], load(reinterpret_cast<const float*>(panel + p * panel_bytes)));
      }
      store(sums + r * kGroupOutputs + p * kPanel, acc[r][p]);
    }
  }
}

using Tile = void (*)(PairRows rows, const std::byte* panel, const std::byte* ahead, int shares,
                      std::size_t panel_bytes, std::int64_t inputs, float* sums);

/// How many rows one tile takes, and how many panels a tile of `rows` rows: what the registers hold.
inline constexpr int kTileRows = 8;
constexpr int tile_panels(int rows) { return rows <= 2 ? 8 : rows <= 6 ? 4 : 2; }

template <DType kType, int R>
Tile choose_panels(int panels) {
  if constexpr (tile_panels(R) >= 8) {
    if (panels == 8) return tile<kType, R, 8>;
  }
  if constexpr (tile_panels(R) >= 4) {
    if (panels == 4) return tile<kType, R, 4>;
  }
  return panels == 2 ? tile<kType, R, 2> : tile<kType, R, 1>;
}

template <int R>
Tile choose_type(DType dtype, int panels) {
  return dtype == DType::kInt8 ? choose_panels<DType::kInt8, R>(panels) : choose_panels<DType::kBFloat16, R>(panels);
}

inline Tile choose_tile(const PackedMatrix& weight, int rows, int panels) {
  using Choose = Tile (*)(DType dtype, int panels);
  static constexpr Choose kByRows[kTileRows] = {choose_type<1>, choose_type<2>, choose_type<3>, choose_type<4>,
                                                choose_type<5>, choose_type<6>, choose_type<7>, choose_type<8>};
  return kByRows[rows - 1](weight.dtype(), panels);
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
