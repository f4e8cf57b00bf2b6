#pragma once

#include "kernels/cuda/ptx.h"
#include "kernels/element.h"
#include "kernels/packed_matrix.h"

/// Elements of cached keys and values: float32, or bfloat16 rounded to nearest.
namespace specmoe::kernels::cuda {

__device__ inline float cached_float(float x) { return x; }
__device__ inline float cached_float(BFloat16 x) { return low_float(x.bits); }

__device__ inline void put_cached(float& to, float x) { to = x; }
__device__ inline void put_cached(BFloat16& to, float x) { to.bits = static_cast<std::uint16_t>(to_bf16x2(x, 0.0f)); }

/// Where a new head is written to.
struct HeadPlace {
  void* data;
  std::int64_t first;  // element
  DType dtype;

  __device__ void put(int i, float x) const {
    if (dtype == DType::kBFloat16) {
      put_cached(static_cast<BFloat16*>(data)[first + i], x);
    } else {
      put_cached(static_cast<float*>(data)[first + i], x);
    }
  }
};

}  // namespace specmoe::kernels::cuda
