#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kVectors = kPanel / kWidth;  // per panel

/// acc[r][p] += x[r][k] * weight(p, .), for R rows and P panels.
/// The compiler keeps such an array in registers only when every loop over it is unrolled by pragma. Three rows by two
/// panels fill all sixteen AVX2 registers: there the empty asm statements keep it from holding the broadcasts of one
/// panel for the next and from moving accumulators about, either of which spills (78 instead of 111 GFLOP/s).
template <int R, int P, class Weight>
[[gnu::always_inline]] inline void multiply_add(Floats (&acc)[R][P][kVectors], const float* (&x)[R], std::int64_t k,
                                                const Weight& weight) {
  constexpr bool kTight = kWidth == 8 && R == 3 && P == 2;
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    Floats w[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) w[v] = weight(p, v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (kTight) asm("" : "+r"(x[r]));
      const Floats input = broadcast(x[r][k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        acc[r][p][v] = fma(input, w[v], acc[r][p][v]);
        if (kTight) asm("" : "+x"(acc[r][p][v]));
      }
    }
  }
}

/// acc[p] += x[0] * low + x[1] * high for one row: two inputs of bfloat16 weights that come in one load.
/// Left to itself the compiler loads them twice, and then loading takes as long as multiplying.
template <int P, class Load>
[[gnu::always_inline]] inline void multiply_add_pair(Floats (&acc)[1][P][kVectors], const float* x, const Load& load) {
  const Floats first = broadcast(x[0]);
  const Floats second = broadcast(x[1]);
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Bits pair = load(p, v);
      asm("" : "+x"(pair));
      acc[0][p][v] = fma(first, low_bfloat16(pair), acc[0][p][v]);
      acc[0][p][v] = fma(second, high_bfloat16(pair), acc[0][p][v]);
    }
  }
}

/// With AVX2 one row goes through four panels so fast that the processor's own prefetchers keep up, and instructions
/// for it are in their way: without them a token takes 9 % (from memory) to 14 % (from the cache) less on Zen 3. int8
/// is slower to widen.
template <DType kType, int R>
inline constexpr bool kFetchesAhead = kWidth != 8 || R > 1 || kType == DType::kInt8;

/// sums[r * kGroupOutputs + p * 16 + j] = the product of input row r with output j of panel p, for R rows and P panels,
/// `stride` bytes from one to the next.
/// Every output is one chain of fused multiply-adds over ascending k, whatever R and P: rows keep their bits.
/// The panels `ahead`, next in turn, are fetched meanwhile, or a `shares`-th part of them: the processor's own
/// prefetchers lose each stream where a panel ends (measured: 0.6-0.8 of the read bandwidth without, 1.0-1.2 with).
template <DType kType, int R, int P>
void tile(const float* const* rows, const std::byte* panel, const std::byte* ahead, int shares, std::size_t stride,
          std::int64_t inputs, float* sums) {
  Floats acc[R][P][kVectors];
  const float* x[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    x[r] = rows[r];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) acc[r][p][v] = zeros();
    }
  }
  // Elements that one load brings for an output, and its bytes.
  constexpr std::int64_t kStep = kType == DType::kFloat32 ? 1 : 2;
  constexpr int kLoad = kWidth * (kType == DType::kInt8 ? 2 : 4);
  const auto at = [&](int p, int v) { return panel + p * stride + v * kLoad; };
  const auto low = [&](int p, int v) {
    if constexpr (kType == DType::kInt8) return low_int8(load_int8_pairs(at(p, v)));
    if constexpr (kType == DType::kBFloat16) return low_bfloat16(load_bits(at(p, v)));
    if constexpr (kType == DType::kFloat32) return load(reinterpret_cast<const float*>(at(p, v)));
  };
  const auto high = [&](int p, int v) {
    if constexpr (kType == DType::kInt8) return high_int8(load_int8_pairs(at(p, v)));
    if constexpr (kType == DType::kBFloat16) return high_bfloat16(load_bits(at(p, v)));
  };
  const int fetched = kVectors * kLoad / shares;
  std::int64_t k = 0;
  if constexpr (kWidth == 8 && R == 1 && kType == DType::kBFloat16) {
    const auto load = [&](int p, int v) __attribute__((always_inline)) { return load_bits(at(p, v)); };
#pragma GCC unroll 2
    for (; k + kStep <= inputs; k += kStep, panel += kVectors * kLoad) multiply_add_pair<P>(acc, x[0] + k, load);
  }
  for (; k + kStep <= inputs; k += kStep, panel += kVectors * kLoad, ahead += fetched) {
#pragma GCC unroll 4
    for (int p = 0; kFetchesAhead<kType, R> && p < P; ++p) prefetch(ahead + p * stride);
    multiply_add<R, P>(acc, x, k, low);
    if constexpr (kStep == 2) multiply_add<R, P>(acc, x, k + 1, high);
  }
  if (k < inputs) {
    multiply_add<R, P>(acc, x, k, low);
    panel += kVectors * kLoad;
  }
  const auto scaled = [&](Floats sum, int p, int v) {
    if constexpr (kType != DType::kInt8) return sum;
    const auto* scale = reinterpret_cast<const float*>(panel + p * stride) + v * kWidth;
    return mul(sum, mul(load(scale), broadcast(1.0F / kInt8Factor)));
  };
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        store(sums + r * kGroupOutputs + p * kPanel + v * kWidth, scaled(acc[r][p][v], p, v));
      }
    }
  }
}

using Tile = void (*)(const float* const* rows, const std::byte* panel, const std::byte* ahead, int shares,
                      std::size_t stride, std::int64_t inputs, float* sums);

/// How many rows one tile takes, and how many panels a tile of `rows` rows: what the registers hold.
inline constexpr int kTileRows = kWidth == 8 ? 5 : 8;
constexpr int tile_panels(int rows) {
  if (kWidth == 8) return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
  return rows <= 4 ? 4 : 2;
}

template <DType kType, int R>
Tile choose_panels(int panels) {
  constexpr int kMost = tile_panels(R);
  if constexpr (kMost >= 4) {
    if (panels == 4) return tile<kType, R, 4>;
  }
  if constexpr (kMost >= 2) {
    if (panels == 2) return tile<kType, R, 2>;
  }
  return tile<kType, R, 1>;
}

template <int R>
Tile choose_type(DType dtype, int panels) {
  if (dtype == DType::kInt8) return choose_panels<DType::kInt8, R>(panels);
  return dtype == DType::kBFloat16 ? choose_panels<DType::kBFloat16, R>(panels)
                                   : choose_panels<DType::kFloat32, R>(panels);
}

inline Tile choose_tile(const PackedMatrix& weight, int rows, int panels) {
  const DType dtype = weight.dtype();
  switch (rows) {
    case 1:
      return choose_type<1>(dtype, panels);
    case 2:
      return choose_type<2>(dtype, panels);
    case 3:
      return choose_type<3>(dtype, panels);
    case 4:
      return choose_type<4>(dtype, panels);
    case 5:
      return choose_type<5>(dtype, panels);
    default:
      break;
  }
  if constexpr (kTileRows > 5) {
    switch (rows) {
      case 6:
        return choose_type<6>(dtype, panels);
      case 7:
        return choose_type<7>(dtype, panels);
      case 8:
        return choose_type<8>(dtype, panels);
      default:
        break;
    }
  }
  return nullptr;
}

/// The inputs of a block of rows as the tiles read them: where they lie.
class Inputs {
 public:
  /// The inputs of so many rows stay in the second-level cache.
  static std::int64_t most_rows(std::int64_t /*inputs*/) { return kMost; }

  template <class Row>
  void take(const Row& row, std::int64_t first, std::int64_t count, std::int64_t /*inputs*/) {
    for (std::int64_t i = 0; i < count; ++i) rows_[i] = row(first + i);
  }
  const float* const* from(std::int64_t row) const { return rows_ + row; }

 private:
  static constexpr std::int64_t kMost = 64;
  const float* rows_[kMost];
};

}  // namespace specmoe::kernels::SPECMOE_SIMD
