#pragma once

/// The CUDA language as kernels use it. nvcc compiles a kernel source for the device; g++ compiles the same source as
/// ordinary C++ for tests, with tests/cuda_emulation on its include path in place of CUDA's own header.
#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <cuda_emulation.h>
#endif

#include <cstddef>
#include <cstdint>

namespace specmoe::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// The block's dynamic shared memory, aligned to 16 bytes.
#ifdef __CUDACC__
__device__ inline std::byte* shared_memory() {
  extern __shared__ __align__(16) unsigned char specmoe_arena[];
  return reinterpret_cast<std::byte*>(specmoe_arena);
}
#else
inline std::byte* shared_memory() { return cuda_emulation::shared_arena(); }
#endif

/// Hands out shared memory piece by piece, each aligned to 16 bytes. Every thread of a block asks for the same pieces.
class SharedArena {
 public:
  __device__ SharedArena() : at_(shared_memory()) {}
  template <class T>
  __device__ T* take(std::int64_t count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return piece;
  }

 private:
  std::byte* at_;
};

/// What SharedArena::take<T>(count) uses up.
template <class T>
constexpr std::size_t arena_bytes(std::int64_t count) {
  return (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
}

__device__ inline int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

/// The sum over a warp's lanes, in every lane: always added in the same order.
template <class T>
__device__ T warp_sum(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}
template <class T>
__device__ T warp_max(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

/// The sum over a block of whole warps, in every thread, in one fixed order. `scratch` holds one T per warp; it may be
/// used again after the next barrier.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  value = warp_sum(value);
  if (lane_index() == 0) scratch[warp_index()] = value;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  T total = scratch[0];
  for (int i = 1; i < warps; ++i) total += scratch[i];
  return total;
}

}  // namespace specmoe::kernels::cuda
