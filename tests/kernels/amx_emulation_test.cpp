// The AMX kernels on emulated tiles and AVX2 vectors, so that their logic is tested on processors without AMX: the twin
// tests of this program then run them as the back end "amx".
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/element.h"
#include "kernels/linear.h"
#include "kernels/moe_ffn.h"
#include "tests/support/kernel_data.h"

#undef SPECMOE_KERNEL
#define SPECMOE_KERNEL(kernel, backend, function) \
  static const bool kernel##_##function##_stands_in = stand_in(backend, [] { kernel.add(backend, function); })

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SPECMOE_SIMD amx_emulated
// clang-format off: the vector comes first
namespace specmoe::kernels::amx_emulated {
inline constexpr Backend kBackend = Backend::kAmx;
inline constexpr Backend kAllTypes = Backend::kAvx2;
constexpr bool takes(DType dtype) { return dtype != DType::kFloat32; }

struct Tile {
  int rows = 0;
  int row_bytes = 0;
  alignas(64) std::byte data[16][64] = {};
};

/// Tiles in memory; what is outside a tile's shape must not be touched.
struct Tiles {
  static inline thread_local Tile tiles[8];

  struct Configured {
    template <class Shape>
    explicit Configured(const Shape& shape) {
      for (int i = 0; i < 8; ++i) {
        tiles[i].rows = shape.rows[i];
        tiles[i].row_bytes = shape.row_bytes[i];
        std::memset(tiles[i].data, 0, sizeof(tiles[i].data));
      }
    }
    ~Configured() {
      for (Tile& tile : tiles) tile = Tile();
    }
  };

  template <int kTile>
  static void zero() {
    std::memset(tiles[kTile].data, 0, sizeof(tiles[kTile].data));
  }
  template <int kTile>
  static void load(const void* from, std::size_t stride) {
    for (int r = 0; r < tiles[kTile].rows; ++r) {
      std::memcpy(tiles[kTile].data[r], static_cast<const std::byte*>(from) + static_cast<std::size_t>(r) * stride,
                  static_cast<std::size_t>(tiles[kTile].row_bytes));
    }
  }
  template <int kTile>
  static void store(void* to, std::size_t stride) {
    for (int r = 0; r < tiles[kTile].rows; ++r) {
      std::memcpy(static_cast<std::byte*>(to) + static_cast<std::size_t>(r) * stride, tiles[kTile].data[r],
                  static_cast<std::size_t>(tiles[kTile].row_bytes));
    }
  }
  template <int kSum, int kInputs, int kWeights>
  static void multiply() {
    const Tile& inputs = tiles[kInputs];
    const Tile& weights = tiles[kWeights];
    Tile& sum = tiles[kSum];
    EXPECT_EQ(inputs.row_bytes, 4 * weights.rows);
    EXPECT_TRUE(inputs.rows == sum.rows && weights.row_bytes == sum.row_bytes);
    for (int r = 0; r < sum.rows; ++r) {
      for (int k = 0; k < weights.rows; ++k) {
        for (int n = 0; n < sum.row_bytes / 4; ++n) {
          std::uint16_t x[2], w[2];
          float total = 0;
          std::memcpy(x, inputs.data[r] + 4 * k, 4);
          std::memcpy(w, weights.data[k] + 4 * n, 4);
          std::memcpy(&total, sum.data[r] + 4 * n, 4);
          for (int i = 0; i < 2; ++i) total += bfloat16_to_float(x[i]) * bfloat16_to_float(w[i]);
          std::memcpy(sum.data[r] + 4 * n, &total, 4);
        }
      }
    }
  }
};
}  // namespace specmoe::kernels::amx_emulated
#include "kernels/cpu/simd/avx2.h"
// clang-format on
namespace specmoe::kernels::amx_emulated {
// What simd/avx512_bf16.h has.
inline void store_pairs(std::uint32_t* to, Floats low, Floats high) {
  float values[2 * kWidth];
  store(values, low);
  store(values + kWidth, high);
  for (int i = 0; i < kWidth; ++i) {
    to[i] = float_to_bfloat16(values[2 * i]) | std::uint32_t{float_to_bfloat16(values[2 * i + 1])} << 16;
  }
}

inline void widen_int8_line(const std::byte* p, std::byte* to) {
  for (int i = 0; i < 32; ++i) {
    const std::uint16_t wide = float_to_bfloat16(static_cast<float>(static_cast<std::int8_t>(p[i])));
    std::memcpy(to + 2 * i, &wide, sizeof(wide));
  }
}
}  // namespace specmoe::kernels::amx_emulated
// clang-format off
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/panels.h"
#include "kernels/cpu/simd/rounded_inputs.h"
#include "kernels/cpu/simd/tile_amx.h"
#include "kernels/cpu/simd/multiply.h"
#include "kernels/cpu/simd/argmax.h"
#include "kernels/cpu/simd/linear.h"
#include "kernels/cpu/simd/moe_ffn.h"
// clang-format on
#pragma GCC pop_options
