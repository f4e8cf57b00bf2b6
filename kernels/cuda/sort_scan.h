#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/runtime.h"

/// Sorting and running sums over a whole device: CUB's in sort_scan.cu, the standard library's in tests/cuda_emulation.
/// How many items there are is known when the work is queued, so that a graph may hold it. Nothing is allocated.
namespace specmoe::kernels::cuda {

/// Bytes of scratch that either call needs for at most `items` items. Throws Error when the device cannot say.
std::size_t sort_scan_scratch(int items, Stream& stream);

/// Queues: values, and keys with them, by rising key; equal keys keep their order. Input and output must not overlap.
///
/// bits  keys are in [0, 2^bits)
void sort_pairs(const std::int32_t* keys, const std::int32_t* values, int items, int bits, std::int32_t* sorted_keys,
                std::int32_t* sorted_values, void* scratch, std::size_t scratch_bytes, Stream& stream);

/// Queues: sums[i] = values[0] + ... + values[i]. May be in place.
void running_sums(const std::int32_t* values, int items, std::int32_t* sums, void* scratch, std::size_t scratch_bytes,
                  Stream& stream);

}  // namespace specmoe::kernels::cuda
