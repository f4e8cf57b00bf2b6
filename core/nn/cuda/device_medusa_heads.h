#pragma once

#include <memory>
#include <vector>

#include "core/language_model.h"
#include "core/nn/cuda/device_weights.h"
#include "core/nn/cuda/step_buffers.h"
#include "core/nn/medusa_heads.h"

namespace specmoe::nn::cuda {

/// Medusa heads on a device. Their passes are a few launches and are not recorded.
class DeviceMedusaHeads final : public MedusaHeads {
 public:
  /// target  whose output matrix heads without one use
  DeviceMedusaHeads(std::span<const PackedMedusaHead> heads, std::shared_ptr<const DeviceWeights> target, int device);

  int count() const override { return static_cast<int>(heads_.size()); }
  void forward(int head, kernels::Rows<const float> rows, ForwardResult& result) override;

 private:
  struct Head {
    struct Block {
      kernels::cuda::DeviceMatrix weight;  // [D, D]
      const float* bias = nullptr;         // [D]
    };
    std::vector<Block> blocks;
    kernels::cuda::DeviceMatrix output;  // without rows: the target's
  };

  void reserve(std::int64_t rows, std::int64_t hidden, std::int64_t vocab);

  std::shared_ptr<const DeviceWeights> target_;
  kernels::cuda::Stream stream_;
  WeightStore store_;
  std::vector<Head> heads_;

  RowBuffer x_, branch_, logits_;  // for most_rows_
  kernels::cuda::DeviceArray<std::int32_t> argmax_;
  kernels::cuda::DeviceArray<std::int32_t> row_count_;
  std::int64_t most_rows_ = 0;
};

}  // namespace specmoe::nn::cuda
