#pragma once

#include <memory>
#include <vector>

#include "core/nn/cuda/decode_step.h"
#include "core/nn/cuda/device_weights.h"
#include "core/nn/pass.h"

namespace specmoe::nn::cuda {

/// A ModelSpec run on a CUDA device: a pass is one upload, one recorded graph, one download.
class DeviceTransformer final : public LanguageModel {
 public:
  /// kv_dtype    of its caches: float32 or bfloat16
  /// dense_rows  rows of a chunk of a prompt whose dense_products() go through DenseLinear; 0: those of no chunk do
  /// threads     that pack the weights of its heads
  DeviceTransformer(ModelSpec spec, std::shared_ptr<const DeviceWeights> weights, ModelInfo info, int device,
                    kernels::DType kv_dtype, int dense_rows = 0, int threads = 1);

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> text) const override;
  /// When the device fails, what was staged in the caches of these blocks is dropped, and they can be used again.
  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override;
  std::shared_ptr<LanguageModel> partial(const ModelPart& part) const override;
  DraftHead draft_head(const std::string& path) const override;
  std::shared_ptr<MedusaHeads> medusa_heads(const std::string& path) const override;

  /// The logits that the last pass left on the device, [rows wanted, V], in memory of their own.
  std::shared_ptr<float> keep_logits();

  const ModelSpec& spec() const { return spec_; }
  int device() const { return device_; }
  /// Its weights, for steps that queue passes of their own.
  const DeviceModel& device_model() const { return model_; }

 private:
  /// model  in the weights' memory
  DeviceTransformer(ModelSpec spec, std::shared_ptr<const DeviceWeights> weights, DeviceModel model, ModelInfo info,
                    int device, kernels::DType kv_dtype);

  kernels::DType dtype() const { return model_.head.dtype; }
  ModelInfo describe(const ModelSpec& spec, bool tied) const;
  bool sees_whole_blocks() const { return spec_.layers[0].attention.whole_block; }
  void run(ForwardResult& result);
  void fill_device_pass(const ForwardResult& result);
  void fill_features();
  DecodeStep& step_for(const DevicePass& pass);
  kernels::Rows<float> wanted_logits() const;
  void download(const DecodeStep& step, ForwardResult& result);
  void take_experts(const DecodeStep& step, ForwardResult& result) const;

  ModelSpec spec_;
  ModelInfo info_;
  kernels::DType kv_dtype_;
  int device_;
  int threads_ = 1;
  std::shared_ptr<kernels::cuda::Stream> stream_;
  std::shared_ptr<const DeviceWeights> weights_;  // parts of a model share them
  DeviceModel model_;
  std::unique_ptr<kernels::cuda::DenseLinear> dense_;  // null: not wanted
  std::unique_ptr<DecodeStep> step_;                   // with room for the largest pass so far

  Pass pass_;
  DevicePass device_pass_;
  std::vector<std::uint64_t> ancestors_;  // of all new rows
  kernels::cuda::DeviceArray<std::uint64_t> device_ancestors_;
  std::vector<std::int32_t> experts_;  // as the step holds them
};

}  // namespace specmoe::nn::cuda
