#pragma once

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/device.h"

namespace specmoe::kernels::cuda::attention {

/// A row's keys by logical position: the committed ones, then its staged ancestors by depth.
struct RowKeys {
  const std::uint64_t* ancestors = nullptr;
  std::int32_t words = 0;
  std::int32_t committed = 0;
  std::int32_t length = 0;

  /// Row of the cache that holds logical position `position`, which is below length.
  __device__ std::int32_t slot(std::int32_t position) const {
    if (position < committed) return position;
    std::int32_t wanted = position - committed;
    for (std::int32_t word = 0; word < words; ++word) {
      std::uint64_t bits = ancestors[word];
      const int here = __popcll(bits);
      if (wanted >= here) {
        wanted -= here;
        continue;
      }
      for (; wanted > 0; --wanted) bits &= bits - 1;
      return committed + 64 * word + __ffsll(static_cast<long long>(bits)) - 1;
    }
    return committed;
  }
};

__device__ inline RowKeys row_keys(const DeviceRow& row, const DeviceSequence& sequence) {
  RowKeys keys;
  keys.words = sequence.words;
  keys.ancestors = sequence.ancestors + static_cast<std::int64_t>(row.own) * sequence.words;
  keys.committed = sequence.committed;
  keys.length = sequence.committed;
  for (std::int32_t word = 0; word < keys.words; ++word) keys.length += __popcll(keys.ancestors[word]);
  return keys;
}

}  // namespace specmoe::kernels::cuda::attention
