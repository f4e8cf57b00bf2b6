#pragma once

#include <memory>

#include "core/nn/cuda/decode_step.h"
#include "core/nn/cuda/device_cache.h"
#include "core/nn/cuda/device_transformer.h"
#include "core/step/step_kernels.h"

namespace specmoe::cuda {

/// One model's part in whole steps: its cache of the sequence, its passes, and what kernels write for them.
class ModelPass {
 public:
  /// rows    most of one pass
  /// staged  most of one step, all its passes together
  /// path    most that a step keeps
  ModelPass(std::shared_ptr<LanguageModel> model, int rows, int staged, int path, kernels::cuda::Stream& stream);

  /// Begins a sequence: an empty cache for texts of up to `text` tokens, filled with `prompt`. True when addresses have
  /// changed, so that what was recorded is of no use.
  bool open(std::span<const TokenId> prompt, int text, kernels::cuda::Stream& stream);

  const StagedRows& rows() const { return staged_; }
  nn::cuda::DecodeStep& step() { return *step_; }
  const nn::ModelSpec& spec() const { return model_->spec(); }
  /// Queues the commitment's moves: rows that are kept and lie too far behind.
  void queue_keep(kernels::cuda::Stream& stream) const;

 private:
  std::shared_ptr<nn::cuda::DeviceTransformer> model_;
  nn::cuda::DecodeStep::Limits limits_;
  std::unique_ptr<nn::cuda::DecodeStep> step_;
  std::unique_ptr<KVCache> cache_;
  kernels::cuda::DeviceArray<std::uint64_t> ancestors_;
  kernels::cuda::DeviceArray<std::int32_t> integers_;
  StagedRows staged_;
};

}  // namespace specmoe::cuda
