#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "core/nn/weights.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/panel_upload.h"

namespace specmoe::nn::cuda {

/// Owns copies of weights on a device. What it is given may go when a call returns; of nothing it keeps null.
class WeightStore {
 public:
  explicit WeightStore(int device) : stream_(device), upload_(std::in_place, stream_) {}

  const float* keep(const std::vector<float>& values);
  const std::int32_t* keep(const std::vector<std::int32_t>& values);
  const std::byte* keep(std::span<const std::byte> bytes);
  kernels::cuda::DeviceNorm keep(const NormWeights& norm);
  /// Matrices as they are packed for Backend::kScalar.
  kernels::cuda::DeviceMatrix keep(const kernels::PackedMatrix& matrix);
  /// All experts of a layer, in one piece.
  kernels::cuda::DeviceMatrices keep(std::span<const kernels::PackedMatrix> matrices);

  /// All is there: gives back what uploading took.
  void finish() { upload_.reset(); }

 private:
  kernels::cuda::Stream stream_;
  std::vector<kernels::cuda::DeviceArray<std::byte>> memory_;
  std::optional<kernels::cuda::PanelUpload> upload_;
};

}  // namespace specmoe::nn::cuda
