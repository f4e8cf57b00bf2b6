#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

/// What a kernel source sees in place of <cuda_runtime.h> when g++ compiles it as ordinary C++: CUDA's names on top of
/// an emulation of grids, blocks, warps and shared memory. Every emulated thread is a fiber on one operating-system
/// thread; fibers change only at barriers, warp collectives, atomics and the end, in an order drawn from a seed.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace cuda_emulation {

using Where = std::source_location;

/// What a running thread knows about itself.
struct Thread {
  dim3 thread_index, block_index, block_size, grid_size;
};
extern Thread* current;

/// This block's dynamic shared memory, filled with NaN when the block starts.
std::byte* shared_arena();

void block_barrier(Where where);

inline constexpr std::size_t kMaxPayload = 64;
/// Meets the other lanes of `mask` with `payload`; returns the payloads of all lanes, kMaxPayload bytes apart. Orders
/// memory only when asked to: shuffles, votes and matrix products do not on a device either.
const std::byte* meet_lanes(unsigned mask, const void* payload, std::size_t bytes, bool orders_memory, Where where);
unsigned lane();

template <class T>
struct Lanes {
  const std::byte* payloads;
  const T& operator[](unsigned i) const { return *reinterpret_cast<const T*>(payloads + i * kMaxPayload); }
};
template <class T>
Lanes<T> exchange(unsigned mask, const T& own, Where where) {
  static_assert(sizeof(T) <= kMaxPayload);
  return {meet_lanes(mask, &own, sizeof(T), false, where)};
}

/// Lets other threads run: at atomics and in waiting loops.
void yield();

/// Asynchronous copies of this thread: done by a fiber of its own, at the last moment that the matching wait allows.
/// `bytes` come from `global`, or are zeros when they are not wanted.
void async_copy(void* shared, const void* global, unsigned bytes, bool wanted, Where where);
void async_commit();
/// Waits for all but the `pending` youngest committed groups.
void async_wait(unsigned pending);

/// Runs body() for every thread of the grid. Throws Fault when the kernel breaks a rule that can be seen here.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);

}  // namespace cuda_emulation

#define threadIdx (::cuda_emulation::current->thread_index)
#define blockIdx (::cuda_emulation::current->block_index)
#define blockDim (::cuda_emulation::current->block_size)
#define gridDim (::cuda_emulation::current->grid_size)

inline void __syncthreads(cuda_emulation::Where where = cuda_emulation::Where::current()) {
  cuda_emulation::block_barrier(where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  cuda_emulation::meet_lanes(mask, nullptr, 0, true, where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const unsigned base = cuda_emulation::lane() & ~static_cast<unsigned>(width - 1);
  return cuda_emulation::exchange(mask, value, where)[base + (static_cast<unsigned>(source) & (width - 1))];
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  cuda_emulation::Where where = cuda_emulation::Where::current()) {
  static_cast<void>(width);
  const unsigned source = cuda_emulation::lane() ^ static_cast<unsigned>(lane_mask);
  return cuda_emulation::exchange(mask, value, where)[source];
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const auto lanes = cuda_emulation::exchange(mask, predicate, where);
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= ((mask >> i & 1u) != 0 && lanes[i] != 0) ? 1u << i : 0u;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

// Atomics are relaxed, as on the device: they order nothing.
template <class T>
T atomicAdd(T* cell, T value) {
  const T before = std::atomic_ref<T>(*cell).fetch_add(value, std::memory_order_relaxed);
  cuda_emulation::yield();
  return before;
}
template <class T>
T atomicMax(T* cell, T value) {
  std::atomic_ref<T> atomic(*cell);
  T before = atomic.load(std::memory_order_relaxed);
  while (before < value && !atomic.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
  }
  cuda_emulation::yield();
  return before;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1; }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
