#include "core/nn/memory_table.h"

#include <unistd.h>

#include "core/nn/kv_storage.h"
#include "core/nn/weights.h"
#include "core/nn/workspace.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::DType;
using kernels::PackedMatrix;

namespace {

std::int64_t packed_bytes(std::int64_t rows, std::int64_t cols, DType dtype) {
  return static_cast<std::int64_t>(PackedMatrix::bytes_of(rows, cols, dtype));
}

/// What one part of a layer takes.
struct Cost {
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;
  std::int64_t vector_parameters = 0;  // not in `parameters`
  std::int64_t vector_floats = 0;

  void matrix(std::int64_t rows, std::int64_t cols, DType dtype) {
    parameters += rows * cols;
    bytes += packed_bytes(rows, cols, dtype);
  }
  void vector(std::int64_t floats) {
    vector_parameters += floats;
    vector_floats += floats;
  }
};

Cost latent_cost(const AttentionSpec& attention, std::int64_t hidden, DType dtype) {
  const LatentSpec& latent = *attention.latent;
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  const std::int64_t first = latent.query_rank > 0 ? latent.query_rank : queries;
  const std::int64_t kv = std::int64_t{latent.kv_rank} + latent.rope_dim;
  Cost cost;
  cost.matrix(first + kv, hidden, dtype);
  if (latent.query_rank > 0) cost.matrix(queries, latent.query_rank, dtype);
  cost.matrix(std::int64_t{attention.heads} * (latent.nope_dim + latent.value_dim), latent.kv_rank, dtype);
  cost.vector(std::int64_t{latent.query_rank} + latent.kv_rank);
  if (attention.qkv_bias) {
    cost.vector_parameters += latent.query_rank + kv;
    cost.vector_floats += first + kv;
  }
  return cost;
}

/// inputs  columns of the first projections
Cost attention_cost(const AttentionSpec& attention, std::int64_t inputs, std::int64_t hidden, DType dtype) {
  const std::int64_t queries = std::int64_t{attention.heads} * attention.head_dim;
  const std::int64_t keys = std::int64_t{attention.kv_heads} * attention.head_dim;
  Cost cost;
  if (attention.latent) {
    cost = latent_cost(attention, hidden, dtype);
  } else {
    cost.matrix(queries + 2 * keys, inputs, dtype);
    if (attention.qkv_bias) cost.vector(queries + 2 * keys);
  }
  cost.matrix(hidden, std::int64_t{attention.heads} * attention.value_dim(), dtype);
  if (attention.output_bias) cost.vector(hidden);
  if (attention.sinks) cost.vector(attention.heads);
  const bool per_head = attention.qk_norm == QkNorm::kPerHead || attention.qk_norm == QkNorm::kPerHeadAfterRope;
  if (per_head) cost.vector(2 * std::int64_t{attention.head_dim});
  if (attention.qk_norm == QkNorm::kFlat) cost.vector(queries + keys);
  return cost;
}

/// One expert, or the dense part.
Cost expert_cost(std::int64_t width, bool bias, std::int64_t hidden, DType dtype) {
  Cost cost;
  cost.matrix(width, hidden, dtype);
  cost.matrix(width, hidden, dtype);
  cost.matrix(hidden, width, dtype);
  if (bias) cost.vector(2 * width + hidden);
  return cost;
}

Cost router_cost(const FfnSpec& ffn, std::int64_t hidden) {
  Cost cost;
  if (!ffn.router) return cost;
  cost.matrix(ffn.router->experts, hidden, DType::kFloat32);
  if (ffn.router->logit_bias) cost.vector(ffn.router->experts);
  if (ffn.router->choice_bias) cost.vector(ffn.router->experts);
  if (ffn.shared && ffn.shared->gated) cost.matrix(1, hidden, DType::kFloat32);
  return cost;
}

Cost fusion_cost(const ModelSpec& spec, DType dtype) {
  Cost cost;
  if (!spec.fusion) return cost;
  cost.matrix(spec.hidden_size, spec.fusion_inputs(), dtype);
  if (spec.fusion->bias) cost.vector(spec.hidden_size);
  if (spec.fusion->normed_embedding) cost.vector(spec.hidden_size);
  cost.vector(spec.feature_norm_size());
  return cost;
}

/// names  of its weight; draft heads lack some
std::int64_t norm_floats(const ModelSpec& spec, const TensorNames::Alternatives& names) {
  if (spec.fusion && names.empty()) return 0;
  return std::int64_t{spec.hidden_size} * (spec.norm == NormKind::kLayer ? 2 : 1);
}

/// A Workspace for passes of use.rows rows, and the logits they return.
std::int64_t workspace_bytes(const ModelSpec& spec, const MemoryUse& use) {
  const WorkspaceSizes sizes(spec, use.rows, use.context);
  const std::int64_t logits = use.rows * spec.vocab_size;
  return (sizes.shared() + use.threads * sizes.own() + logits) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace

void MemoryTable::add(const char* part, std::int64_t bytes) {
  if (bytes > 0) lines.push_back({part, bytes});
}

std::int64_t MemoryTable::total() const {
  std::int64_t sum = 0;
  for (const MemoryLine& line : lines) sum += line.bytes;
  return sum;
}

ModelSize model_size(const ModelSpec& spec, DType dtype, bool tied) {
  const std::int64_t hidden = spec.hidden_size;
  const std::int64_t table = std::int64_t{spec.vocab_size} * hidden;
  constexpr std::int64_t kFloat = sizeof(float);
  const std::int64_t head = spec.borrows_output() ? 0 : std::int64_t{spec.head_rows()} * hidden;
  const std::int64_t head_read = packed_bytes(spec.head_rows(), hidden, dtype);
  const Cost fusion = fusion_cost(spec, dtype);
  ModelSize size;
  size.head_bytes = spec.borrows_output() ? 0 : head_read;
  size.embedding_bytes = tied ? 0 : table * static_cast<std::int64_t>(kernels::dtype_bytes(table_dtype(dtype)));
  const std::int64_t final_vectors = norm_floats(spec, spec.names.final_norm) + (spec.head_bias ? spec.vocab_size : 0);
  size.vector_bytes = (final_vectors + fusion.vector_floats) * kFloat;
  size.dense_bytes = fusion.bytes;
  // One token reads one row of the embedding and all of the head.
  const std::int64_t once = final_vectors + fusion.parameters + fusion.vector_parameters + head;
  size.parameters = once + (tied ? 0 : table);
  size.active_parameters = once + (tied ? 0 : hidden);
  std::int64_t active_experts = 0;
  for (const LayerSpec& layer : spec.layers) {
    const FfnSpec& ffn = layer.ffn;
    const Cost attention = attention_cost(layer.attention, spec.attention_inputs(), hidden, dtype);
    const Cost router = router_cost(ffn, hidden);
    const Cost expert = expert_cost(ffn.width, ffn.bias, hidden, dtype);
    const Cost shared = ffn.shared ? expert_cost(ffn.shared->width, false, hidden, dtype) : Cost{};
    const std::int64_t experts = ffn.router ? ffn.router->experts : 1;
    const std::int64_t chosen = ffn.router ? ffn.router->experts_per_token : 1;
    const std::int64_t norms = (norm_floats(spec, spec.names.attention_norm) + norm_floats(spec, spec.names.ffn_norm)) *
                               (spec.block_order == BlockOrder::kSandwich ? 2 : 1);
    const std::int64_t always = attention.parameters + attention.vector_parameters + router.parameters +
                                router.vector_parameters + shared.parameters + norms;
    size.parameters += always + experts * (expert.parameters + expert.vector_parameters);
    size.active_parameters += always + chosen * (expert.parameters + expert.vector_parameters);
    size.attention_bytes += attention.bytes;
    size.router_bytes += router.bytes;
    size.dense_bytes += shared.bytes;
    size.vector_bytes +=
        (attention.vector_floats + router.vector_floats + norms + experts * expert.vector_floats) * kFloat;
    if (ffn.router) {
      size.expert_bytes = expert.bytes;
      size.expert_total_bytes += experts * expert.bytes;
      active_experts += chosen * expert.bytes;
    } else {
      size.dense_bytes += expert.bytes;
    }
  }
  const std::int64_t always = size.attention_bytes + size.router_bytes + size.dense_bytes + size.vector_bytes;
  size.weight_bytes = size.embedding_bytes + size.head_bytes + always + size.expert_total_bytes;
  size.active_weight_bytes = head_read + always + active_experts;
  return size;
}

MemoryTable weight_table(const ModelSpec& spec, DType dtype, bool tied) {
  const ModelSize size = model_size(spec, dtype, tied);
  MemoryTable table;
  table.add("embedding", size.embedding_bytes);
  table.add("attention", size.attention_bytes);
  table.add("router", size.router_bytes);
  table.add("experts", size.expert_total_bytes);
  table.add("feed-forward", size.dense_bytes);
  table.add("norms and biases", size.vector_bytes);
  table.add("output head", size.head_bytes);
  return table;
}

MemoryTable memory_table(const ModelSpec& spec, const MemoryUse& use) {
  MemoryTable table = weight_table(spec, use.dtype, spec.tied_embeddings);
  table.add("KV cache", KvStorage::bytes(spec, use.kv_dtype, use.context));
  table.add("workspaces", workspace_bytes(spec, use));
  return table;
}

void check_memory(std::int64_t bytes, const std::string& what) {
  const auto machine = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  SPECMOE_CHECK(bytes <= machine, what, " needs ", static_cast<double>(bytes) / kGiB, " GiB, this machine has ",
                static_cast<double>(machine) / kGiB, " GiB");
}

}  // namespace specmoe::nn
