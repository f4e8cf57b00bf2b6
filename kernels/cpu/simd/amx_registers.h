#pragma once

// The processor's tile registers, for kernels/cpu/simd/tile_amx.h.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Written in assembly, because the compiler's macros take tile numbers as literal text only.
struct Tiles {
  /// Tiles are configured while it lives; afterwards their state is released, which keeps idle threads cheap.
  class Configured {
   public:
    template <class Shape>
    explicit Configured(const Shape& shape) {
      asm volatile("ldtilecfg %0" ::"m"(shape));
    }
    ~Configured() { asm volatile("tilerelease"); }
    Configured(const Configured&) = delete;
    Configured& operator=(const Configured&) = delete;
  };

  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  /// Rows `stride` bytes apart.
  template <int kTile>
  static void load(const void* from, std::size_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(kTile), "r"(from), "r"(stride) : "memory");
  }
  template <int kTile>
  static void store(void* to, std::size_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(kTile), "r"(to), "r"(stride) : "memory");
  }
  /// Sum += Inputs * Weights, the weights as pairs.
  template <int kSum, int kInputs, int kWeights>
  static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kInputs), "i"(kWeights));
  }
};

}  // namespace specmoe::kernels::SPECMOE_SIMD
