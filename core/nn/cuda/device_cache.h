#pragma once

#include <memory>
#include <vector>

#include "core/nn/model_spec.h"
#include "core/nn/staged_cache.h"
#include "kernels/cuda/decode_ops.h"

namespace specmoe::nn::cuda {

/// Keys and values of one sequence on a device, in KvStorage's layout.
class DeviceCache final : public StagedCache {
 public:
  /// dtype  of keys and values: float32 or bfloat16
  /// Throws Error when the device has no room for it.
  DeviceCache(const ModelSpec& spec, kernels::DType dtype, int capacity, const void* owner, int text, int device,
              std::shared_ptr<kernels::cuda::Stream> stream);

  void* keys() const { return keys_.data(); }
  void* values() const { return values_.data(); }
  /// Neighbouring layers with keys and values of the same sizes, taken for one layer with all their heads: what kv_keep
  /// moves at once.
  const std::vector<kernels::cuda::AttentionShape>& runs() const { return runs_; }

 protected:
  void move_rows(std::span<const std::int32_t> path) override;

 private:
  std::shared_ptr<kernels::cuda::Stream> stream_;
  std::vector<kernels::cuda::AttentionShape> runs_;
  kernels::cuda::DeviceArray<std::byte> keys_, values_;
  kernels::cuda::DeviceArray<kernels::cuda::DeviceSequence> device_sequence_;
  kernels::cuda::DeviceArray<std::int32_t> device_path_;
  // What is being copied to the device.
  kernels::cuda::DeviceSequence sequence_;
  std::vector<std::int32_t> path_;
};

}  // namespace specmoe::nn::cuda
