#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/model_spec.h"
#include "kernels/packed_matrix.h"

namespace specmoe::nn {

/// What a model will take, from its spec alone.
struct MemoryLine {
  std::string part;
  std::int64_t bytes = 0;
};
struct MemoryTable {
  std::vector<MemoryLine> lines;
  /// Parts of no bytes are left out.
  void add(const char* part, std::int64_t bytes);
  std::int64_t total() const;
};

/// One cache of `context` tokens, and workspaces for passes of `rows` rows, all of them with logits, on `threads`
/// threads.
struct MemoryUse {
  kernels::DType dtype = kernels::DType::kBFloat16;
  kernels::DType kv_dtype = kernels::DType::kFloat32;
  std::int64_t context = 0;
  std::int64_t rows = 64;
  int threads = 1;
};
MemoryTable memory_table(const ModelSpec& spec, const MemoryUse& use);
/// Its first lines: the packed weights.
MemoryTable weight_table(const ModelSpec& spec, kernels::DType dtype, bool tied);

/// Sizes of a model's parts, in parameters and in packed bytes.
struct ModelSize {
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;    // used for one token: of a mixture only the chosen experts
  std::int64_t weight_bytes = 0;         // all packed weights
  std::int64_t active_weight_bytes = 0;  // streamed for one token: of an embedding table only one row
  std::int64_t expert_bytes = 0;         // one expert of one layer; 0: dense
  std::int64_t embedding_bytes = 0;      // a table beside the packed head
  std::int64_t head_bytes = 0;           // 0: borrowed
  std::int64_t attention_bytes = 0;      // all layers
  std::int64_t expert_total_bytes = 0;
  std::int64_t dense_bytes = 0;   // feed-forward parts without experts, and shared experts
  std::int64_t router_bytes = 0;  // with the gates of shared experts
  std::int64_t vector_bytes = 0;  // norms and biases
};
/// `tied` as resolved by the checkpoint; the spec's own flag before loading.
ModelSize model_size(const ModelSpec& spec, kernels::DType dtype, bool tied);

/// Throws Error when `bytes` are more than the machine's memory. what: "a KV cache of 4096 tokens".
void check_memory(std::int64_t bytes, const std::string& what);

}  // namespace specmoe::nn
