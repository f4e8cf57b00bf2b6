#pragma once

#include "kernels/cuda/device_order.h"
#include "kernels/cuda/runtime.h"

namespace specmoe::kernels::cuda {

/// out[i] = panels(i) for the first `words`, all of them on the device: by Thrust in order_words.cu, by a loop in
/// tests/cuda_emulation.
void order_words(const OrderedPanels& panels, std::int64_t words, std::uint32_t* out, Stream& stream);

/// Puts matrices on a device, through memory there that takes some of their panels at a time.
class PanelUpload {
 public:
  static constexpr std::size_t kBytes = std::size_t{16} << 20;

  /// bytes  of that memory; more when a panel has more
  explicit PanelUpload(Stream& stream, std::size_t bytes = kBytes) : stream_(stream), bytes_(bytes) {}

  /// out: [device_bytes(matrix)] on the device. The matrix may go when this returns.
  void put(const PackedMatrix& matrix, std::byte* out);

 private:
  Stream& stream_;
  std::size_t bytes_;
  DeviceArray<std::byte> staged_;
};

}  // namespace specmoe::kernels::cuda
