#include <algorithm>
#include <cmath>

#include "core/nn/transformer.h"

namespace specmoe::nn {

using kernels::contiguous;
using kernels::MoeUp;
using kernels::Rows;
using kernels::Shard;

/// The plan of the pass and the weight of every pair, product_scale() included.
void Transformer::route(std::size_t layer, Rows<const float> normed, Private& mine, bool record) {
  const FfnSpec& spec = spec_.layers[layer].ffn;
  if (!spec.router) {
    std::fill_n(mine.expert_weight.data(), normed.rows, spec_.product_scale());
    mine.plan.build(mine.only_expert.data(), normed.rows, 1, 1);
    return;
  }
  const FfnWeights& weights = layers_[layer]->ffn;
  const int k = spec.router->experts_per_token;
  const Rows<float> logits = rows(mine.router_logits, spec.router->experts);
  kernels_.packed_linear(normed, weights.router, data_or_null(weights.router_bias), {}, logits,
                         weights.router.share({}));
  kernels_.moe_router(logits, *spec.router, data_or_null(weights.choice_bias), mine.expert.data(),
                      mine.expert_weight.data());
  mine.plan.build(mine.expert.data(), normed.rows, k, spec.router->experts);
  const std::int64_t pairs = normed.rows * k;
  if (record && result_->want_experts) {
    std::copy_n(mine.expert.data(), pairs, result_->experts.data() + moe_index_[layer] * pairs);
  }
  if (spec.router->scales_input || spec_.product_scale() == 1.0F) return;
  for (std::int64_t pair = 0; pair < pairs; ++pair) mine.expert_weight.data()[pair] *= spec_.product_scale();
}

/// The shared expert takes every row, with the weight that its gate gives.
void Transformer::weigh_shared(std::size_t layer, Rows<const float> normed, Private& mine) {
  const FfnSpec& spec = spec_.layers[layer].ffn;
  float* weight = mine.shared_weight.data();
  std::fill_n(weight, normed.rows, spec_.product_scale());
  if (spec.shared->gated) {
    const Rows<float> gate = contiguous(weight, normed.rows, std::int64_t{1});
    const kernels::PackedMatrix& scale = layers_[layer]->ffn.shared_scale;
    kernels_.packed_linear(normed, scale, nullptr, {}, gate, scale.share({}));
    for (std::int64_t t = 0; t < normed.rows; ++t) weight[t] = spec_.product_scale() / (1.0F + std::exp(-weight[t]));
  }
  mine.shared_plan.build(mine.only_expert.data(), normed.rows, 1, 1);
}

void Transformer::feed_forward(std::size_t layer, Member& member) {
  const FfnSpec& spec = spec_.layers[layer].ffn;
  const LayerWeights& weights = *layers_[layer];
  const FfnWeights& ffn = weights.ffn;
  const Shard shard = member.shard();
  Private& mine = own(shard);
  const Rows<const float> normed = norm(weights.ffn_norm, mine);
  route(layer, normed, mine, shard.index == 0);
  const bool scales_input = spec.router && spec.router->scales_input;
  const std::int64_t pairs = normed.rows * mine.plan.k;
  const Rows<float> hidden = contiguous(workspace_.hidden.data(), pairs, std::int64_t{spec.width});
  const MoeUp how = {spec.activation, scales_input ? mine.expert_weight.data() : nullptr, data_or_null(ffn.up_bias)};
  kernels_.moe_up(normed, ffn.gate_up.data(), mine.plan, how, hidden, shard);
  Rows<float> shared;
  if (spec.shared) {
    weigh_shared(layer, normed, mine);
    shared = contiguous(hidden.data + pairs * spec.width, normed.rows, std::int64_t{spec.shared->width});
    kernels_.moe_up(normed, &ffn.shared_gate_up, mine.shared_plan, {spec.activation}, shared, shard);
  }
  if (scales_input) std::fill_n(mine.expert_weight.data(), pairs, spec_.product_scale());
  member.barrier();

  const bool sandwich = spec_.block_order == BlockOrder::kSandwich;
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  const Rows<float> out = sandwich ? rows(workspace_.branch, spec_.hidden_size) : x;
  const Rows<float> scratch = contiguous(workspace_.down.data(), pairs, std::int64_t{spec_.hidden_size});
  kernels_.moe_down(hidden, ffn.down.data(), mine.plan, mine.expert_weight.data(), data_or_null(ffn.down_bias),
                    sandwich ? Rows<const float>{} : x, scratch, out, shard);
  if (spec.shared) {
    // Columns of this thread's own again, so nobody has to wait.
    kernels_.moe_down(shared, &ffn.shared_down, mine.shared_plan, mine.shared_weight.data(), nullptr, out, scratch, out,
                      shard);
  }
  if (sandwich) add_normed_branch(weights.ffn_out_norm, member);
}

}  // namespace specmoe::nn
