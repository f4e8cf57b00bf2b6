#pragma once

#include <vector>

#include "core/nn/cuda/decode_step.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_spec.h"
#include "core/nn/weights.h"

namespace specmoe::nn::cuda {

/// Throws Error that names the family and what of it the device kernels do not compute.
void check_family(const ModelSpec& spec);

/// What the weights take on a device.
MemoryTable device_weight_table(const ModelSpec& spec, kernels::DType dtype, bool tied);

/// Throws Error with the whole table when the device has less free than that.
void check_device_memory(const MemoryTable& table, const std::string& model, const std::string& device,
                         const kernels::cuda::DeviceInfo& info);

/// A model's weights in device memory.
class DeviceWeights {
 public:
  /// weights  as pack_weights() makes them for Backend::kScalar; not needed afterwards
  DeviceWeights(const ModelSpec& spec, const Weights& weights, int device, kernels::cuda::Stream& stream);

  const DeviceModel& model() const { return model_; }

 private:
  using PackedMatrix = kernels::PackedMatrix;

  const std::byte* keep(const void* data, std::size_t bytes);
  const float* keep(const std::vector<float>& values);
  kernels::cuda::DeviceMatrix keep(const PackedMatrix& matrix);
  kernels::cuda::DeviceMatrices keep(const std::vector<PackedMatrix>& matrices);
  const float* rope_table(const RopeSpec& rope, int positions);
  DeviceLayer layer(const ModelSpec& model, const LayerSpec& spec, const LayerWeights& weights);

  int device_;
  kernels::cuda::Stream& stream_;
  std::vector<kernels::cuda::DeviceArray<std::byte>> memory_;
  std::vector<std::pair<RopeSpec, const float*>> ropes_;
  std::int64_t key_floats_ = 0;  // per position, of the layers so far
  DeviceModel model_;
};

}  // namespace specmoe::nn::cuda
