#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"

#ifndef __CUDACC__
#include <algorithm>
#include <atomic>
#include <bit>
#endif

/// The instructions that CUDA C++ has no name for. Each has its device body and, next to it, the emulated one.
namespace specmoe::kernels::cuda {

/// Two bfloat16 in one register, the first in the low half.
using Bf16x2 = std::uint32_t;

__device__ inline float low_float(Bf16x2 pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_float(Bf16x2 pair) { return __uint_as_float(pair & 0xffff0000u); }

/// Rounds to nearest, ties to even.
__device__ inline Bf16x2 to_bf16x2(float low, float high) {
#ifdef __CUDACC__
  Bf16x2 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  const auto round = [](float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return value != value ? 0x7fffu : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  };
  return round(low) | round(high) << 16;
#endif
}

/// Fragments of mma.m16n8k16, per lane, with g = lane / 4 and t = lane % 4:
///   a  [16, 16]  a[0] row g, columns 2t, 2t+1; a[1] row g + 8; a[2], a[3] the same, columns 2t+8, 2t+9
///   b  [16, 8]   b[0] rows 2t, 2t+1 of column g; b[1] rows 2t+8, 2t+9
///   c  [16, 8]   c[0], c[1] row g, columns 2t, 2t+1; c[2], c[3] row g + 8
struct MmaB {
  Bf16x2 b[2];
};
struct MmaC {
  float c[4];
};

/// c += a b: bfloat16 products, which are exact in float32, and float32 sums.
__device__ inline void mma_bf16(MmaC& c, const uint4& a, const MmaB& b) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.c[0]), "+f"(c.c[1]), "+f"(c.c[2]), "+f"(c.c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.b[0]), "r"(b.b[1]));
#else
  struct Operands {
    uint4 a;
    MmaB b;
  };
  const auto lanes = cuda_emulation::exchange(kAllLanes, Operands{a, b}, cuda_emulation::Where::current());
  const unsigned g = cuda_emulation::lane() / 4, t = cuda_emulation::lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned column = 2 * t + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const Operands& row = lanes[4 * g + k % 8 / 2];
      const Bf16x2 pairs[4] = {row.a.x, row.a.y, row.a.z, row.a.w};
      const Bf16x2 left = pairs[(k < 8 ? 0 : 2) + i / 2];
      const Bf16x2 right = lanes[4 * column + k % 8 / 2].b.b[k / 8];
      c.c[i] += k % 2 == 0 ? low_float(left) * low_float(right) : high_float(left) * high_float(right);
    }
  }
#endif
}

/// Sixteen bytes that nobody will read again soon: weights, read once per pass.
__device__ inline uint4 load_streaming(const void* from) {
#ifdef __CUDACC__
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
#else
  return *static_cast<const uint4*>(from);
#endif
}

/// Starts copying 16 or 8 bytes from global to shared memory, zeros instead when `wanted` is false. What was copied may
/// be read after commit_copies(), a wait for that group by this thread and, by other threads, a barrier after it.
template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global, bool wanted) {
  static_assert(kBytes == 16 || kBytes == 8);
#ifdef __CUDACC__
  const int bytes = wanted ? kBytes : 0;
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  }
#else
  cuda_emulation::async_copy(shared, global, kBytes, wanted, cuda_emulation::Where::current());
#endif
}
__device__ inline void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  cuda_emulation::async_commit();
#endif
}
/// Waits for all but the kPending youngest groups of this thread.
template <int kPending>
__device__ inline void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#else
  cuda_emulation::async_wait(kPending);
#endif
}

/// Takes a number. What this thread did before, and what a barrier ordered before it, is seen by whoever takes a later
/// number.
__device__ inline unsigned take_ticket(unsigned* counter) {
#ifdef __CUDACC__
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
  return before;
#else
  const unsigned before = std::atomic_ref<unsigned>(*counter).fetch_add(1, std::memory_order_acq_rel);
  cuda_emulation::yield();
  return before;
#endif
}

/// Whether the loop of Graph::record_loop() that this kernel is in goes on. One thread of one kernel says it in a
/// round.
__device__ inline void continue_loop(LoopFlag loop, bool goes_on) {
  if (loop.handle == 0) return;
#ifdef __CUDACC__
  cudaGraphSetConditional(static_cast<cudaGraphConditionalHandle>(loop.handle), goes_on ? 1 : 0);
#else
  *reinterpret_cast<unsigned*>(loop.handle) = goes_on ? 1 : 0;
#endif
}

/// Which part of the queue_choice() behind this kernel is done. One thread of one kernel says it.
__device__ inline void choose_part(ChoiceFlag choice, unsigned part) {
  if (choice.handle == 0) return;
#ifdef __CUDACC__
  cudaGraphSetConditional(static_cast<cudaGraphConditionalHandle>(choice.handle), part);
#else
  *reinterpret_cast<unsigned*>(choice.handle) = part;
#endif
}

}  // namespace specmoe::kernels::cuda
