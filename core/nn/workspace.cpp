#include "core/nn/workspace.h"

#include <algorithm>

#include "kernels/tree_attention.h"

namespace specmoe::nn {

WorkspaceSizes::WorkspaceSizes(const ModelSpec& spec, std::int64_t row_count, std::int64_t positions)
    : rows(row_count) {
  const auto at_least = [](std::int64_t& size, std::int64_t wanted) { size = std::max(size, wanted); };
  const std::int64_t model_width = spec.hidden_size;
  x = normed = rows * model_width;
  if (spec.block_order == BlockOrder::kSandwich) branch = x;
  if (spec.fusion) features = rows * spec.fusion_inputs();
  if (spec.fusion && spec.fusion->wide_attention) {
    embedded = x;
    wide = rows * spec.attention_inputs();
    draft_logits = rows * spec.head_rows();
  }
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    const FfnSpec& ffn = layer.ffn;
    const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
    if (attention.latent) {
      const LatentSpec& low = *attention.latent;
      const std::int64_t first = low.query_rank > 0 ? low.query_rank : queries;
      at_least(qkv, rows * (first + low.kv_rank + low.rope_dim));
      if (low.query_rank > 0) at_least(query, rows * queries);
      at_least(kv, rows * attention.heads * (low.nope_dim + low.value_dim));
      at_least(latent, rows * (low.query_rank + low.kv_rank));
    } else {
      at_least(qkv, rows * (queries + 2 * std::int64_t{attention.kv_heads} * attention.head_dim));
    }
    at_least(key, rows * attention.head_dim);
    at_least(value, rows * attention.value_dim());
    at_least(attended, rows * attention.heads * attention.value_dim());
    at_least(this->attention, kernels::attention_scratch_floats(positions, attention.head_dim));
    const std::int64_t chosen = rows * (ffn.router ? ffn.router->experts_per_token : 1);
    at_least(hidden, chosen * ffn.width + (ffn.shared ? rows * ffn.shared->width : 0));
    at_least(down, chosen * model_width);
    at_least(pairs, chosen);
    at_least(experts, ffn.router ? ffn.router->experts : 1);
    at_least(router_logits, rows * (ffn.router ? ffn.router->experts : 1));
  }
}

std::int64_t WorkspaceSizes::shared() const {
  return x + qkv + query + kv + attended + hidden + down + branch + features + embedded + draft_logits;
}

std::int64_t WorkspaceSizes::own() const {
  constexpr std::int64_t kSharedExpert = 1;
  const std::int64_t plan = experts + (experts + 1) + pairs;
  const std::int64_t shared_plan = kSharedExpert + (kSharedExpert + 1) + rows;
  return normed + wide + latent + key + value + router_logits + attention + 4 * rows + 2 * pairs + plan + shared_plan;
}

void Workspace::reserve(const ModelSpec& spec, std::int64_t rows, std::int64_t positions) {
  const WorkspaceSizes sizes(spec, rows, positions);
  const auto at_least = [](FloatBuffer& buffer, std::int64_t floats) {
    buffer.reserve(static_cast<std::size_t>(floats));
  };
  const auto plan_at_least = [](kernels::MoePlan& plan, std::int64_t experts, std::int64_t pairs) {
    plan.experts.reserve(static_cast<std::size_t>(experts));
    plan.offsets.reserve(static_cast<std::size_t>(experts) + 1);
    plan.pairs.reserve(static_cast<std::size_t>(pairs));
  };
  at_least(x, sizes.x);
  at_least(qkv, sizes.qkv);
  at_least(query, sizes.query);
  at_least(kv, sizes.kv);
  at_least(attended, sizes.attended);
  at_least(hidden, sizes.hidden);
  at_least(down, sizes.down);
  at_least(branch, sizes.branch);
  at_least(features, sizes.features);
  at_least(embedded, sizes.embedded);
  at_least(draft_logits, sizes.draft_logits);
  for (Private& thread : own) {
    at_least(thread.normed, sizes.normed);
    at_least(thread.wide, sizes.wide);
    at_least(thread.latent, sizes.latent);
    at_least(thread.key, sizes.key);
    at_least(thread.value, sizes.value);
    at_least(thread.router_logits, sizes.router_logits);
    at_least(thread.expert_weight, sizes.pairs);
    at_least(thread.shared_weight, sizes.rows);
    at_least(thread.attention, sizes.attention);
    thread.best.resize(std::max(thread.best.size(), static_cast<std::size_t>(sizes.rows)));
    thread.expert.resize(std::max(thread.expert.size(), static_cast<std::size_t>(sizes.pairs)));
    thread.only_expert.resize(std::max(thread.only_expert.size(), static_cast<std::size_t>(sizes.rows)));
    plan_at_least(thread.plan, sizes.experts, sizes.pairs);
    plan_at_least(thread.shared_plan, 1, sizes.rows);
  }
}

std::int64_t Workspace::bytes() const {
  std::size_t elements = 0;
  const auto count_plan = [&elements](const kernels::MoePlan& plan) {
    elements += plan.experts.capacity() + plan.offsets.capacity() + plan.pairs.capacity();
  };
  for (const FloatBuffer* buffer :
       {&x, &qkv, &query, &kv, &attended, &hidden, &down, &branch, &features, &embedded, &draft_logits}) {
    elements += buffer->capacity();
  }
  for (const Private& thread : own) {
    for (const FloatBuffer* buffer :
         {&thread.normed, &thread.wide, &thread.latent, &thread.key, &thread.value, &thread.router_logits,
          &thread.expert_weight, &thread.shared_weight, &thread.attention}) {
      elements += buffer->capacity();
    }
    elements += 2 * thread.best.size() + thread.expert.size() + thread.only_expert.size();
    count_plan(thread.plan);
    count_plan(thread.shared_plan);
  }
  return static_cast<std::int64_t>(elements * sizeof(float));
}

}  // namespace specmoe::nn
