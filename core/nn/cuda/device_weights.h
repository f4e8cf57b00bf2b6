#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/nn/cuda/device_model.h"
#include "core/nn/cuda/weight_store.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_spec.h"
#include "core/nn/weights.h"

namespace specmoe::nn::cuda {

/// Throws Error when heads or experts are more than the device kernels hold.
void check_sizes(const ModelSpec& spec);

/// What the weights take on a device.
MemoryTable device_weight_table(const ModelSpec& spec, kernels::DType dtype, bool tied);

/// Throws Error with the whole table when the device has less free than that.
void check_device_memory(const MemoryTable& table, const std::string& model, const std::string& device,
                         const kernels::cuda::DeviceInfo& info);

/// Where the layers' keys and values are in a cache, one layer after another.
class CachePlaces {
 public:
  /// Sets the places in `shape`.
  void take(const AttentionSpec& spec, kernels::cuda::AttentionShape& shape);

 private:
  std::int64_t keys_ = 0;  // elements per position, of the layers so far
  std::int64_t values_ = 0;
};

/// The model that is left when only `layers` of another are run, as `part` says. It borrows the same memory.
DeviceModel part_of(const DeviceModel& whole, const ModelSpec& part, std::span<const int> layers);

/// A model's weights in device memory.
class DeviceWeights {
 public:
  /// weights   as pack_weights() makes them for Backend::kScalar; not needed afterwards
  /// kv_dtype  of the caches that the model is used with
  /// target    of a draft head: lends the embedding and the output matrix that the head lacks
  DeviceWeights(const ModelSpec& spec, const Weights& weights, kernels::DType kv_dtype, int device,
                std::shared_ptr<const DeviceWeights> target = nullptr);

  const DeviceModel& model() const { return model_; }

 private:
  /// Cosines and sines by position; of longrope those of short texts and of long ones.
  struct RopeTables {
    RopeSpec spec;
    const float* short_text = nullptr;
    const float* long_text = nullptr;
  };

  void borrow(const DeviceModel& target, const Weights& own);
  DeviceFusion fusion(const ModelSpec& spec, const FusionWeights& weights);
  const RopeTables& rope_tables(const RopeSpec& rope, int positions);
  DeviceLayer layer(const ModelSpec& model, const LayerSpec& spec, const LayerWeights& weights);
  kernels::cuda::AttentionShape shape_of_attention(const AttentionSpec& spec, const LayerWeights& weights);
  kernels::cuda::HeadRule head_rule(const ModelSpec& model, const AttentionSpec& spec);
  DeviceLatent latent(const LatentSpec& spec, const LayerWeights& weights);
  DeviceFfn ffn(const ModelSpec& model, const FfnSpec& spec, const FfnWeights& weights);

  kernels::DType kv_dtype_;
  WeightStore store_;
  std::shared_ptr<const DeviceWeights> target_;
  std::vector<RopeTables> ropes_;
  CachePlaces places_;
  DeviceModel model_;
};

}  // namespace specmoe::nn::cuda
