#include "core/nn/workspace.h"

#include "kernels/tree_attention.h"

namespace specmoe::nn {

void Workspace::reserve(const ModelSpec& spec, std::int64_t rows, std::int64_t positions) {
  const auto at_least = [](FloatBuffer& buffer, std::int64_t floats) {
    buffer.reserve(static_cast<std::size_t>(floats));
  };
  const std::int64_t model_width = spec.hidden_size;
  at_least(x, rows * model_width);
  for (Private& thread : own) at_least(thread.normed, rows * model_width);
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    const std::int64_t head_dim = attention.head_dim;
    const std::int64_t experts = layer.ffn.router ? layer.ffn.router->experts : 1;
    const std::int64_t pairs = rows * (layer.ffn.router ? layer.ffn.router->experts_per_token : 1);
    at_least(qkv, rows * (attention.heads + 2 * attention.kv_heads) * head_dim);
    at_least(attended, rows * attention.heads * head_dim);
    at_least(hidden, pairs * layer.ffn.width);
    if (layer.ffn.bias) at_least(up, rows * layer.ffn.width);
    at_least(down, pairs * model_width);
    for (Private& thread : own) {
      at_least(thread.attention, kernels::attention_scratch_floats(positions, head_dim));
      at_least(thread.router_logits, rows * experts);
      at_least(thread.expert_weight, pairs);
      if (thread.expert.size() < static_cast<std::size_t>(pairs)) thread.expert.resize(static_cast<std::size_t>(pairs));
      thread.plan.experts.reserve(static_cast<std::size_t>(experts));
      thread.plan.offsets.reserve(static_cast<std::size_t>(experts) + 1);
      thread.plan.pairs.reserve(static_cast<std::size_t>(pairs));
    }
  }
}

std::int64_t Workspace::bytes() const {
  std::size_t floats =
      x.capacity() + qkv.capacity() + attended.capacity() + hidden.capacity() + up.capacity() + down.capacity();
  for (const Private& thread : own) {
    floats += thread.normed.capacity() + thread.router_logits.capacity() + thread.expert_weight.capacity() +
              thread.attention.capacity() + thread.expert.size() + thread.plan.experts.capacity() +
              thread.plan.offsets.capacity() + thread.plan.pairs.capacity();
  }
  return static_cast<std::int64_t>(floats * sizeof(float));
}

}  // namespace specmoe::nn
