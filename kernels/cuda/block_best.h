#pragma once

#include "kernels/cuda/device.h"

namespace specmoe::kernels::cuda {

/// An element of a row and its index, -1: none yet.
struct Best {
  float value;
  std::int32_t index;
  __device__ void take(float other_value, std::int32_t other_index) {
    if (other_index < 0) return;
    if (index < 0 || other_value > value || (other_value == value && other_index < index)) {
      value = other_value;
      index = other_index;
    }
  }
};

__device__ inline Best warp_best(Best best) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    best.take(__shfl_xor_sync(kAllLanes, best.value, step), __shfl_xor_sync(kAllLanes, best.index, step));
  }
  return best;
}

/// The best of what the threads of a block bring, in every thread. `scratch` holds one Best per warp. Ends with a
/// barrier.
__device__ inline Best best_of_block(Best best, Best* scratch) {
  best = warp_best(best);
  if (lane_index() == 0) scratch[warp_index()] = best;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int warp = 0; warp < warps; ++warp) best.take(scratch[warp].value, scratch[warp].index);
  __syncthreads();
  return best;
}

/// The largest element, the lowest index of equal ones, -1 where all are NaN; in every thread. `scratch` as above.
__device__ inline Best block_best(const float* row, std::int64_t count, Best* scratch) {
  Best best = {0.0f, -1};
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    if (row[i] == row[i]) best.take(row[i], static_cast<std::int32_t>(i));
  }
  return best_of_block(best, scratch);
}

}  // namespace specmoe::kernels::cuda
