#include "core/step/model_pass.h"

#include <algorithm>
#include <bit>

#include "core/logit_rows.h"
#include "kernels/check.h"

namespace specmoe::cuda {

using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceSequence;
using nn::cuda::DecodeStep;
using nn::cuda::DeviceCache;
using nn::cuda::DeviceTransformer;

ModelPass::ModelPass(std::shared_ptr<LanguageModel> model, int rows, int staged, int path,
                     kernels::cuda::Stream& stream)
    : model_(std::dynamic_pointer_cast<DeviceTransformer>(model)) {
  SPECMOE_CHECK(model_ != nullptr && model_->device() == stream.device(), "whole steps: expected ", model->info().name,
                " on CUDA device ", stream.device(), ", got it on ", model->info().device);
  limits_ = {rows, 1, 0};
  staged_.most = staged;
  staged_.words = (staged + 63) / 64;
  staged_.most_path = path;
  const auto count = static_cast<std::size_t>(staged);
  ancestors_ = DeviceArray<std::uint64_t>(count * static_cast<std::size_t>(staged_.words), stream.device());
  integers_ = DeviceArray<std::int32_t>(count + static_cast<std::size_t>(path) + 2, stream.device());
  staged_.ancestors = ancestors_.data();
  staged_.parents = integers_.data();
  staged_.path = staged_.parents + staged;
  staged_.staged = staged_.path + path;
  staged_.kept = staged_.staged + 1;
}

bool ModelPass::open(std::span<const TokenId> prompt, int text, kernels::cuda::Stream& stream) {
  cache_.reset();  // two of them may be more than the device has
  const int capacity = text + staged_.most;
  cache_ = model_->new_cache(capacity, text);
  prefill(*model_, *cache_, prompt);
  const int positions = static_cast<int>(std::bit_ceil(static_cast<unsigned>(capacity)));
  const bool moves = step_ == nullptr || positions > limits_.positions;
  if (moves) {
    step_.reset();
    limits_.positions = positions;
    step_ = std::make_unique<DecodeStep>(model_->device_model(), limits_, stream);
    const nn::cuda::PassInputs& inputs = step_->inputs();
    staged_.counts = inputs.counts.device;
    staged_.tokens = inputs.tokens.device;
    staged_.wanted = inputs.wanted.device;
    staged_.rows = inputs.rows.device;
    staged_.tiles = inputs.tiles.device;
    staged_.sequence = inputs.sequences.device;
    staged_.tile_rows = step_->tile_rows();
  }
  const auto& cache = static_cast<const DeviceCache&>(*cache_);
  const DeviceSequence sequence = {cache.keys(),  cache.values(),    cache.capacity(), cache.committed(),
                                   staged_.words, staged_.ancestors, cache.text()};
  stream.copy(staged_.sequence, &sequence, sizeof(sequence));
  stream.zero(staged_.staged, 2 * sizeof(std::int32_t));
  stream.synchronize();
  return moves;
}

void ModelPass::queue_keep(kernels::cuda::Stream& stream) const {
  for (const kernels::cuda::AttentionShape& shape : static_cast<const DeviceCache&>(*cache_).runs()) {
    kernels::cuda::kv_keep(staged_.sequence, 1, staged_.path, staged_.most_path, shape, stream);
  }
}

}  // namespace specmoe::cuda
