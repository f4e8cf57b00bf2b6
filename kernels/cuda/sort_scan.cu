#include "kernels/cuda/sort_scan.h"

#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "kernels/check.h"
#include "kernels/cuda/native.h"

namespace specmoe::kernels::cuda {
namespace {

void check(cudaError_t status, const char* what) {
  SPECMOE_CHECK(status == cudaSuccess, what, " on cuda: ", cudaGetErrorName(status), ", ", cudaGetErrorString(status),
                "; try again, or use device cpu");
}

cudaError_t sort(void* scratch, std::size_t& bytes, const std::int32_t* keys, std::int32_t* sorted_keys,
                 const std::int32_t* values, std::int32_t* sorted_values, int items, int bits, cudaStream_t stream) {
  return cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys, values, sorted_values, items, 0, bits,
                                         stream);
}

}  // namespace

std::size_t sort_scan_scratch(int items, Stream& stream) {
  constexpr int kMostBits = 31;
  const cudaStream_t queue = native_stream(stream);
  std::int32_t* none = nullptr;
  std::size_t sort_bytes = 0, scan_bytes = 0;
  check(sort(nullptr, sort_bytes, none, none, none, none, items, kMostBits, queue), "sort_pairs");
  check(cub::DeviceScan::InclusiveSum(nullptr, scan_bytes, none, none, items, queue), "running_sums");
  return std::max(sort_bytes, scan_bytes);
}

void sort_pairs(const std::int32_t* keys, const std::int32_t* values, int items, int bits, std::int32_t* sorted_keys,
                std::int32_t* sorted_values, void* scratch, std::size_t scratch_bytes, Stream& stream) {
  check(sort(scratch, scratch_bytes, keys, sorted_keys, values, sorted_values, items, bits, native_stream(stream)),
        "sort_pairs");
}

void running_sums(const std::int32_t* values, int items, std::int32_t* sums, void* scratch, std::size_t scratch_bytes,
                  Stream& stream) {
  check(cub::DeviceScan::InclusiveSum(scratch, scratch_bytes, values, sums, items, native_stream(stream)),
        "running_sums");
}

}  // namespace specmoe::kernels::cuda
