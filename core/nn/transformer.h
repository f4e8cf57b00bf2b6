#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/language_model.h"
#include "core/nn/kv_storage.h"
#include "core/nn/model_spec.h"
#include "core/nn/pass.h"
#include "core/nn/rope_table.h"
#include "core/nn/weights.h"
#include "core/nn/workspace.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/moe_ffn.h"
#include "kernels/moe_router.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/thread_pool.h"
#include "kernels/tree_attention.h"

namespace specmoe::nn {

/// The kernels of a pass, resolved once.
struct CpuKernels {
  explicit CpuKernels(kernels::Backend backend);

  decltype(kernels::rms_norm)::Function rms_norm;
  decltype(kernels::layer_norm)::Function layer_norm;
  decltype(kernels::packed_linear)::Function packed_linear;
  decltype(kernels::rope)::Function rope;
  decltype(kernels::tree_attention)::Function tree_attention;
  decltype(kernels::moe_router)::Function moe_router;
  decltype(kernels::moe_up)::Function moe_up;
  decltype(kernels::moe_down)::Function moe_down;
  decltype(kernels::row_argmax)::Function row_argmax;
  decltype(kernels::linear_argmax)::Function linear_argmax;
};

/// A ModelSpec run on packed weights by a team of threads. One ThreadPool::run per pass and four barriers per layer of
/// the plain kind whose kv heads go evenly into the team (more where a spec asks for more): norms, router and expert
/// plan are computed by every thread for itself, which is cheaper than waiting for one. A layer's attention is in
/// transformer_attention.cpp, its feed-forward part in transformer_ffn.cpp.
class Transformer final : public LanguageModel {
 public:
  /// kv  type of the keys and values in its caches
  /// target  of a draft head: lends the embedding and the output matrix that the head lacks
  Transformer(ModelSpec spec, Weights weights, ModelInfo info, kernels::DType kv, kernels::Backend backend,
              std::shared_ptr<kernels::ThreadPool> pool, std::shared_ptr<const Weights> target = nullptr);

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> text) const override;
  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override;
  std::shared_ptr<LanguageModel> partial(const ModelPart& part) const override;
  DraftHead draft_head(const std::string& path) const override;
  std::shared_ptr<MedusaHeads> medusa_heads(const std::string& path) const override;

 private:
  /// layers  [spec.layers] which of the weights' layers each one is
  Transformer(ModelSpec spec, std::shared_ptr<const Weights> weights, std::shared_ptr<const Weights> target,
              std::span<const int> layers, ModelInfo info, kernels::DType kv, kernels::Backend backend,
              std::shared_ptr<kernels::ThreadPool> pool);

  using Member = kernels::ThreadPool::Member;
  using Private = Workspace::Private;

  const RopeTable& rope_table(const RopeSpec& spec);
  std::shared_ptr<kernels::ThreadPool> pool_of_head(std::int64_t weight_bytes) const;

  void run(Member& member);
  void embed(kernels::Shard shard);
  void tap(int boundary, kernels::Shard shard);
  void fuse(Member& member);
  void cache_context(Member& member);
  bool skips_fc(const Pass::Block& block) const;
  void take_features(kernels::Range rows);
  void put_features(const float* features, float* input) const;
  kernels::Rows<const float> attention_input(std::size_t layer, Private& mine) const;
  kernels::Rows<const float> norm(const NormWeights& weights, Private& mine) const;
  void normalise(kernels::Rows<const float> x, const NormWeights& weights, kernels::Rows<float> out) const;
  void add_normed_branch(const NormWeights& weights, Member& member);
  void head(Member& member);
  void logits(kernels::Rows<const float> normed, Member& member);
  void spread(const float* draft_logits, float* logits) const;
  void argmaxes(kernels::Rows<const float> normed, Member& member);

  void attention(std::size_t layer, Member& member);
  void attend_own_heads(std::size_t layer, kernels::Rows<const float> normed, kernels::Range kv_heads, Private& mine);
  void attend_shared_heads(std::size_t layer, kernels::Rows<const float> normed, Member& member);
  void expand_latent(std::size_t layer, Member& member);
  void normalise_flat(std::size_t layer, kernels::Shard shard);
  void attend(std::size_t layer, const Pass::Block& block, int kv_head, Private& mine);
  void store_head(std::size_t layer, const Pass::Block& block, int kv_head, Private& mine);
  const std::uint64_t* seen_rows(std::size_t layer, const Pass::Block& block) const;
  void take_head(std::size_t layer, const Pass::Block& block, int kv_head, kernels::Rows<float> key,
                 kernels::Rows<float> value) const;
  void turn(std::size_t layer, const Pass::Block& block, const std::vector<float>& norm_weight,
            kernels::Rows<float> head) const;
  void sharpen(const TemperatureSpec& temperature, const Pass::Block& block, kernels::Rows<float> query) const;
  kernels::Rows<float> query_heads(std::size_t layer, const Pass::Block& block) const;

  void feed_forward(std::size_t layer, Member& member);
  void route(std::size_t layer, kernels::Rows<const float> normed, Private& mine, bool record);
  void weigh_shared(std::size_t layer, kernels::Rows<const float> normed, Private& mine);

  kernels::LogitShape logit_shape() const { return {spec_.logit_scale, spec_.logit_softcap}; }
  kernels::Rows<float> rows(const FloatBuffer& buffer, std::int64_t cols) const {
    return kernels::contiguous(buffer.data(), pass_.rows(), cols);
  }
  Private& own(kernels::Shard shard) { return workspace_.own[static_cast<std::size_t>(shard.index)]; }

  ModelSpec spec_;
  std::shared_ptr<const Weights> weights_;       // parts of a model share them
  std::shared_ptr<const Weights> embedding_of_;  // whose embedding it uses: weights_, or a head's target's
  std::shared_ptr<const Weights> head_of_;       // whose output matrix it uses
  std::vector<const LayerWeights*> layers_;      // [spec_.layers]
  ModelInfo info_;
  kernels::DType kv_;
  kernels::Backend backend_;
  CpuKernels kernels_;
  std::shared_ptr<kernels::ThreadPool> pool_;
  mutable std::vector<RopeTable> ropes_;
  std::vector<const RopeTable*> rope_of_layer_;  // null: the layer knows no positions
  std::vector<float> ones_;                      // weight of a norm without one
  std::vector<int> moe_index_;                   // [layers] -1: dense
  std::function<void(Member&)> run_;

  Pass pass_;
  Workspace workspace_;
  ForwardResult* result_ = nullptr;  // of the running pass
};

}  // namespace specmoe::nn
