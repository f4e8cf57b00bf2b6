#pragma once

#include "kernels/cuda/decode_ops.h"

namespace specmoe::nn::cuda {

/// What a pass reads, in one piece on the host and in one at fixed places on the device, so that one copy brings it
/// there.
class PassInputs {
 public:
  template <class T>
  struct Part {
    T* host = nullptr;
    T* device = nullptr;
  };

  PassInputs(int rows, int sequences, int device);
  /// Queues the copy. What is on the host must stay as it is until it is done.
  void upload(kernels::cuda::Stream& stream) const { stream.copy(device_.data(), host_.data(), device_.size()); }

  Part<std::int32_t> counts;  // [2] rows, rows with logits
  Part<std::int32_t> tokens;  // [rows]
  Part<std::int32_t> wanted;  // [rows]
  Part<kernels::cuda::DeviceRow> rows;
  Part<kernels::cuda::AttentionTile> tiles;  // [rows]
  Part<kernels::cuda::DeviceSequence> sequences;

 private:
  template <class T>
  static std::size_t bytes_of(int count) {
    return (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
  }
  template <class T>
  void place(Part<T>& part, int count, std::size_t& at) {
    part = {reinterpret_cast<T*>(host_.data() + at), reinterpret_cast<T*>(device_.data() + at)};
    at += bytes_of<T>(count);
  }

  kernels::cuda::HostArray<std::byte> host_;
  kernels::cuda::DeviceArray<std::byte> device_;
};

inline PassInputs::PassInputs(int row_count, int sequence_count, int device) {
  using kernels::cuda::AttentionTile;
  using kernels::cuda::DeviceRow;
  using kernels::cuda::DeviceSequence;
  const std::size_t bytes = bytes_of<std::int32_t>(2) + 2 * bytes_of<std::int32_t>(row_count) +
                            bytes_of<DeviceRow>(row_count) + bytes_of<AttentionTile>(row_count) +
                            bytes_of<DeviceSequence>(sequence_count);
  host_ = kernels::cuda::HostArray<std::byte>(bytes);
  device_ = kernels::cuda::DeviceArray<std::byte>(bytes, device);
  std::size_t at = 0;
  place(counts, 2, at);
  place(tokens, row_count, at);
  place(wanted, row_count, at);
  place(rows, row_count, at);
  place(tiles, row_count, at);
  place(sequences, sequence_count, at);
}

}  // namespace specmoe::nn::cuda
