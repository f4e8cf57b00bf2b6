#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/nn/cuda/decode_step.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_spec.h"
#include "core/nn/weights.h"
#include "kernels/cuda/panel_upload.h"

namespace specmoe::nn::cuda {

/// Throws Error when heads or experts are more than the device kernels hold.
void check_sizes(const ModelSpec& spec);

/// What the weights take on a device.
MemoryTable device_weight_table(const ModelSpec& spec, kernels::DType dtype, bool tied);

/// Throws Error with the whole table when the device has less free than that.
void check_device_memory(const MemoryTable& table, const std::string& model, const std::string& device,
                         const kernels::cuda::DeviceInfo& info);

/// A model's weights in device memory.
class DeviceWeights {
 public:
  /// weights   as pack_weights() makes them for Backend::kScalar; not needed afterwards
  /// kv_dtype  of the caches that the model is used with
  DeviceWeights(const ModelSpec& spec, const Weights& weights, kernels::DType kv_dtype, int device,
                kernels::cuda::Stream& stream);

  const DeviceModel& model() const { return model_; }

 private:
  using PackedMatrix = kernels::PackedMatrix;

  /// Cosines and sines by position; of longrope those of short texts and of long ones.
  struct RopeTables {
    RopeSpec spec;
    const float* short_text = nullptr;
    const float* long_text = nullptr;
  };

  const std::byte* keep(const void* data, std::size_t bytes);
  const float* keep(const std::vector<float>& values);
  kernels::cuda::DeviceNorm keep(const NormWeights& norm);
  kernels::cuda::DeviceMatrix keep(const PackedMatrix& matrix);
  kernels::cuda::DeviceMatrices keep(std::span<const PackedMatrix> matrices);
  const RopeTables& rope_tables(const RopeSpec& rope, int positions);
  DeviceLayer layer(const ModelSpec& model, const LayerSpec& spec, const LayerWeights& weights);
  kernels::cuda::AttentionShape shape_of_attention(const AttentionSpec& spec, const LayerWeights& weights);
  kernels::cuda::HeadRule head_rule(const ModelSpec& model, const AttentionSpec& spec);
  DeviceLatent latent(const LatentSpec& spec, const LayerWeights& weights);
  DeviceFfn ffn(const ModelSpec& model, const FfnSpec& spec, const FfnWeights& weights);

  kernels::DType kv_dtype_;
  int device_;
  kernels::cuda::Stream& stream_;
  std::vector<kernels::cuda::DeviceArray<std::byte>> memory_;
  std::vector<RopeTables> ropes_;
  std::optional<kernels::cuda::PanelUpload> upload_;  // while it is made
  std::int64_t key_size_ = 0;                         // elements per position, of the layers so far
  std::int64_t value_size_ = 0;
  DeviceModel model_;
};

}  // namespace specmoe::nn::cuda
