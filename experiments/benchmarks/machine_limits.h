#pragma once

// What the processor can do: bytes read and multiply-adds, by a whole team, with nothing else in the way.

#include <immintrin.h>

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::bench {

/// Reads a buffer with every member of a team, each its own share as eight streams: more than that, or one alone, reads
/// slower from memory.
class ReadProbe {
 public:
  explicit ReadProbe(std::size_t bytes) : bytes_(bytes / kUnit * kUnit), memory_(kernels::allocate_aligned(bytes_)) {
    for (std::size_t i = 0; i < bytes_; i += 64) memory_[i] = std::byte{1};
  }

  std::size_t bytes() const { return bytes_; }

  void read(kernels::ThreadPool& pool) const {
    const kernels::Range all = {0, static_cast<std::int64_t>(bytes_)};
    read(pool, {&all, 1});
  }
  /// The parts [begin, end) of the buffer in turn.
  void read(kernels::ThreadPool& pool, std::span<const kernels::Range> parts) const {
    pool.run([this, parts](kernels::ThreadPool::Member& member) {
      for (const kernels::Range& part : parts) {
        const auto range = kernels::split(part.end - part.begin, member.shard(), kUnit);
        read_share(memory_.get() + part.begin + range.begin, static_cast<std::size_t>(range.end - range.begin));
      }
    });
  }

 private:
  static constexpr std::int64_t kStreams = 8;
  static constexpr std::int64_t kUnit = kStreams * 64;

  __attribute__((target("avx2"))) static void read_share(const std::byte* from, std::size_t bytes) {
    const std::size_t stream = bytes / kUnit * 64;
    __m256i sums[kStreams] = {};
    for (std::size_t i = 0; i < stream; i += 64) {
#pragma GCC unroll 8
      for (int s = 0; s < kStreams; ++s) {
        const auto* at = reinterpret_cast<const __m256i*>(from + static_cast<std::size_t>(s) * stream + i);
        sums[s] = _mm256_xor_si256(sums[s], _mm256_xor_si256(_mm256_load_si256(at), _mm256_load_si256(at + 1)));
      }
    }
    for (const __m256i& sum : sums) asm volatile("" ::"x"(sum));
  }

  std::size_t bytes_;
  kernels::AlignedBytes memory_;
};

namespace detail {

inline constexpr int kChains = 12;  // more than two pipes of latency 4 or 6 need

/// kChains chains of Op's multiply-add. Inlined into callers compiled for its instruction set. The empty asm keeps the
/// compiler from seeing that the chains are equal and computing one for all. Op::kMultiplyAdds are those of one step.
template <class Op>
[[gnu::always_inline]] inline void multiply(std::int64_t steps) {
  typename Op::Vector sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) {
    Op::start(sums[i]);
    asm volatile("" : "+v"(sums[i]));
  }
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) Op::next(sums[i]);
  }
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) asm volatile("" ::"v"(sums[i]));
}

struct Avx2 {
  using Vector = __m256;
  static constexpr int kMultiplyAdds = 8 * kChains;
  __attribute__((target("avx2,fma"))) static void start(Vector& sum) { sum = _mm256_set1_ps(0.999F); }
  __attribute__((target("avx2,fma"))) static void next(Vector& sum) {
    const Vector factor = _mm256_set1_ps(0.999F);
    sum = _mm256_fmadd_ps(sum, factor, factor);
  }
  __attribute__((target("avx2,fma"))) static void run(std::int64_t steps) { multiply<Avx2>(steps); }
};

struct Avx512 {
  using Vector = __m512;
  static constexpr int kMultiplyAdds = 16 * kChains;
  __attribute__((target("avx512f"))) static void start(Vector& sum) { sum = _mm512_set1_ps(0.999F); }
  __attribute__((target("avx512f"))) static void next(Vector& sum) {
    const Vector factor = _mm512_set1_ps(0.999F);
    sum = _mm512_fmadd_ps(sum, factor, factor);
  }
  __attribute__((target("avx512f"))) static void run(std::int64_t steps) { multiply<Avx512>(steps); }
};

struct Avx512Bf16 {
  using Vector = __m512;
  static constexpr int kMultiplyAdds = 32 * kChains;
  __attribute__((target("avx512f,avx512bf16"))) static void start(Vector& sum) { sum = _mm512_set1_ps(0.999F); }
  __attribute__((target("avx512f,avx512bf16"))) static void next(Vector& sum) {
    const auto factor = (__m512bh)_mm512_set1_epi32(0x3f7f3f7f);
    sum = _mm512_dpbf16_ps(sum, factor, factor);
  }
  __attribute__((target("avx512f,avx512bf16"))) static void run(std::int64_t steps) { multiply<Avx512Bf16>(steps); }
};

/// Six sums of whole tiles: more than the latency of 52 cycles and one start in 16 need.
struct Amx {
  static constexpr int kMultiplyAdds = 6 * 16 * 16 * 32;
  __attribute__((target("amx-tile,amx-bf16"))) static void run(std::int64_t steps) {
    struct {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    asm volatile("ldtilecfg %0" ::"m"(shape));
    for (std::int64_t step = 0; step < steps; ++step) {
      _tile_dpbf16ps(0, 6, 7);
      _tile_dpbf16ps(1, 6, 7);
      _tile_dpbf16ps(2, 6, 7);
      _tile_dpbf16ps(3, 6, 7);
      _tile_dpbf16ps(4, 6, 7);
      _tile_dpbf16ps(5, 6, 7);
    }
    _tile_release();
  }
};

}  // namespace detail

/// Multiply-adds in registers, all members of a team at once, by the widest instruction the back end's products of
/// bfloat16 weights use. Nothing for the scalar one.
class ArithmeticProbe {
 public:
  explicit ArithmeticProbe(kernels::Backend backend) {
    if (backend == kernels::Backend::kAvx2) use<detail::Avx2>();
    if (backend == kernels::Backend::kAvx512) use<detail::Avx512>();
    if (backend == kernels::Backend::kAvx512Bf16) use<detail::Avx512Bf16>();
    if (backend == kernels::Backend::kAmx) use<detail::Amx>();
  }

  bool known() const { return multiply_ != nullptr; }
  /// A multiply-add counts as two.
  double operations(const kernels::ThreadPool& pool) const {
    return 2.0 * multiply_adds_ * static_cast<double>(kSteps) * pool.size();
  }
  void run(kernels::ThreadPool& pool) const {
    pool.run([this](kernels::ThreadPool::Member&) { multiply_(kSteps); });
  }

 private:
  static constexpr std::int64_t kSteps = 100000;

  template <class Op>
  void use() {
    multiply_ = Op::run;
    multiply_adds_ = Op::kMultiplyAdds;
  }
  void (*multiply_)(std::int64_t) = nullptr;
  int multiply_adds_ = 0;
};

}  // namespace specmoe::bench
