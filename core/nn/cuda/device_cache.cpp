#include "core/nn/cuda/device_cache.h"

#include "kernels/check.h"

namespace specmoe::nn::cuda {

using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceSequence;

DeviceCache::DeviceCache(const ModelSpec& spec, kernels::DType dtype, int capacity, const void* owner, int text,
                         int device, std::shared_ptr<kernels::cuda::Stream> stream)
    : StagedCache(capacity, owner, text),
      stream_(std::move(stream)),
      device_sequence_(1, device),
      device_path_(static_cast<std::size_t>(capacity), device) {
  std::int64_t key_size = 0;  // elements per position
  std::int64_t value_size = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    if (runs_.empty() || runs_.back().head_dim != attention.head_dim ||
        runs_.back().value_size() != attention.value_dim()) {
      runs_.push_back({key_size, 0, 0, attention.head_dim});
      runs_.back().value_dim = attention.value_dim();
      runs_.back().first_value = value_size;
      runs_.back().cached = dtype;
    }
    runs_.back().kv_heads += attention.kv_heads;
    key_size += std::int64_t{attention.kv_heads} * attention.head_dim;
    value_size += std::int64_t{attention.kv_heads} * attention.value_dim();
  }
  const std::size_t position_bytes = static_cast<std::size_t>(capacity) * kernels::dtype_bytes(dtype);
  keys_ = DeviceArray<std::byte>(static_cast<std::size_t>(key_size) * position_bytes, device);
  values_ = DeviceArray<std::byte>(static_cast<std::size_t>(value_size) * position_bytes, device);
}

void DeviceCache::move_rows(std::span<const std::int32_t> path) {
  // The rows of a chain, and the best guess of a tree in depth-first order, are where they belong.
  std::size_t in_place = 0;
  while (in_place < path.size() && path[in_place] == static_cast<std::int32_t>(in_place)) ++in_place;
  if (in_place == path.size()) return;
  stream_->synchronize();  // the last copies from here are done
  path_.assign(path.begin(), path.end());
  sequence_ = {keys_.data(), values_.data(), capacity(), committed(), 0, nullptr, text()};
  stream_->copy(device_path_.data(), path_.data(), path_.size() * sizeof(std::int32_t));
  stream_->copy(device_sequence_.data(), &sequence_, sizeof(sequence_));
  for (const kernels::cuda::AttentionShape& shape : runs_) {
    kernels::cuda::kv_keep(device_sequence_.data(), 1, device_path_.data(), static_cast<int>(path.size()), shape,
                           *stream_);
  }
}

}  // namespace specmoe::nn::cuda
