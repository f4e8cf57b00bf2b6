#include "core/nn/memory_table.h"

#include <unistd.h>

#include "core/nn/kv_storage.h"
#include "core/nn/weights.h"
#include "kernels/check.h"
#include "kernels/tree_attention.h"

namespace specmoe::nn {

using kernels::DType;
using kernels::PackedMatrix;

namespace {

std::int64_t packed_bytes(std::int64_t rows, std::int64_t cols, DType dtype) {
  return static_cast<std::int64_t>(PackedMatrix::bytes_of(rows, cols, dtype));
}

struct LayerCost {
  std::int64_t attention_parameters = 0;
  std::int64_t expert_parameters = 0;  // one expert, or the dense part
  std::int64_t router_parameters = 0;
  std::int64_t vector_parameters = 0;
  std::int64_t expert_bytes = 0;
};

LayerCost layer_cost(const LayerSpec& layer, std::int64_t hidden, DType dtype) {
  const AttentionSpec& attention = layer.attention;
  const std::int64_t width = layer.ffn.width;
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  const std::int64_t qkv = queries + 2 * std::int64_t{attention.kv_heads} * attention.head_dim;
  LayerCost cost;
  cost.attention_parameters = (qkv + queries) * hidden;
  cost.expert_parameters = 3 * width * hidden;
  cost.router_parameters = layer.ffn.router ? layer.ffn.router->experts * hidden : 0;
  cost.vector_parameters = 2 * hidden + (attention.qkv_bias ? qkv : 0) + (attention.output_bias ? hidden : 0) +
                           (layer.ffn.bias ? 2 * width + hidden : 0);
  cost.expert_bytes = 2 * packed_bytes(width, hidden, dtype) + packed_bytes(hidden, width, dtype);
  return cost;
}

std::int64_t attention_bytes(const AttentionSpec& attention, std::int64_t hidden, DType dtype) {
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  const std::int64_t qkv = queries + 2 * std::int64_t{attention.kv_heads} * attention.head_dim;
  return packed_bytes(qkv, hidden, dtype) + packed_bytes(hidden, queries, dtype);
}

/// A Workspace for passes of use.rows rows, and the logits they return.
std::int64_t workspace_bytes(const ModelSpec& spec, const MemoryUse& use) {
  std::int64_t shared = 0;
  std::int64_t own = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    const std::int64_t k = layer.ffn.router ? layer.ffn.router->experts_per_token : 1;
    const std::int64_t experts = layer.ffn.router ? layer.ffn.router->experts : 1;
    const std::int64_t heads = 2 * std::int64_t{attention.heads} + 2 * attention.kv_heads;
    const std::int64_t widths = k * (layer.ffn.width + spec.hidden_size) + (layer.ffn.bias ? layer.ffn.width : 0);
    shared = std::max(shared, use.rows * (heads * attention.head_dim + widths));
    own = std::max(own, use.rows * (experts + 3 * k) + 2 * experts + 1 +
                            kernels::attention_scratch_floats(use.context, attention.head_dim));
  }
  shared += use.rows * (std::int64_t{spec.hidden_size} + spec.vocab_size);
  own += use.rows * spec.hidden_size;
  return (shared + use.threads * own) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace

std::int64_t MemoryTable::total() const {
  std::int64_t sum = 0;
  for (const MemoryLine& line : lines) sum += line.bytes;
  return sum;
}

ModelSize model_size(const ModelSpec& spec, DType dtype, bool tied) {
  const std::int64_t hidden = spec.hidden_size;
  const std::int64_t table = std::int64_t{spec.vocab_size} * hidden;
  constexpr std::int64_t kFloat = sizeof(float);
  ModelSize size;
  size.head_bytes = packed_bytes(spec.vocab_size, hidden, dtype);
  size.embedding_bytes = tied ? 0 : table * static_cast<std::int64_t>(kernels::dtype_bytes(table_dtype(dtype)));
  size.vector_bytes = hidden * kFloat;
  // One token reads one row of the embedding and all of the head.
  size.parameters = hidden + (tied ? table : 2 * table);
  size.active_parameters = hidden + table + (tied ? 0 : hidden);
  std::int64_t active_experts = 0;
  for (const LayerSpec& layer : spec.layers) {
    const LayerCost cost = layer_cost(layer, hidden, dtype);
    const std::int64_t experts = layer.ffn.router ? layer.ffn.router->experts : 1;
    const std::int64_t chosen = layer.ffn.router ? layer.ffn.router->experts_per_token : 1;
    const std::int64_t always = cost.attention_parameters + cost.router_parameters + cost.vector_parameters;
    size.parameters += always + experts * cost.expert_parameters;
    size.active_parameters += always + chosen * cost.expert_parameters;
    size.attention_bytes += attention_bytes(layer.attention, hidden, dtype);
    size.vector_bytes += cost.vector_parameters * kFloat;
    active_experts += chosen * cost.expert_bytes;
    if (layer.ffn.router) {
      size.expert_bytes = cost.expert_bytes;
      size.expert_total_bytes += experts * cost.expert_bytes;
      size.router_bytes += packed_bytes(layer.ffn.router->experts, hidden, DType::kFloat32);
    } else {
      size.dense_bytes += cost.expert_bytes;
    }
  }
  const std::int64_t always = size.head_bytes + size.attention_bytes + size.router_bytes + size.vector_bytes;
  size.weight_bytes = size.embedding_bytes + always + size.expert_total_bytes + size.dense_bytes;
  size.active_weight_bytes = always + active_experts;
  return size;
}

MemoryTable memory_table(const ModelSpec& spec, const MemoryUse& use) {
  const ModelSize size = model_size(spec, use.dtype, spec.tied_embeddings);
  MemoryTable table;
  const auto add = [&table](const char* part, std::int64_t bytes) {
    if (bytes > 0) table.lines.push_back({part, bytes});
  };
  add("embedding", size.embedding_bytes);
  add("attention", size.attention_bytes);
  add("router", size.router_bytes);
  add("experts", size.expert_total_bytes);
  add("feed-forward", size.dense_bytes);
  add("norms and biases", size.vector_bytes);
  add("output head", size.head_bytes);
  add("KV cache", KvStorage::bytes(spec, use.context));
  add("workspaces", workspace_bytes(spec, use));
  return table;
}

void check_memory(std::int64_t bytes, const std::string& what) {
  const auto machine = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  SPECMOE_CHECK(bytes <= machine, what, " needs ", static_cast<double>(bytes) / kGiB, " GiB, this machine has ",
                static_cast<double>(machine) / kGiB, " GiB");
}

}  // namespace specmoe::nn
