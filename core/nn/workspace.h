#pragma once

#include <cstdint>
#include <vector>

#include "core/nn/float_buffer.h"
#include "core/nn/model_spec.h"
#include "kernels/linear.h"
#include "kernels/moe_router.h"

namespace specmoe::nn {

/// Elements of every buffer of a Workspace, 4 bytes each.
struct WorkspaceSizes {
  /// What passes of `rows` rows over `positions` keys need.
  WorkspaceSizes(const ModelSpec& spec, std::int64_t rows, std::int64_t positions);

  std::int64_t shared() const;
  std::int64_t own() const;  // of one thread

  std::int64_t x = 0, qkv = 0, query = 0, kv = 0, attended = 0, hidden = 0, down = 0, branch = 0;
  std::int64_t normed = 0, latent = 0, key = 0, value = 0, attention = 0;
  std::int64_t rows = 0, pairs = 0, experts = 0, router_logits = 0;
  std::int64_t features = 0, embedded = 0, wide = 0, draft_logits = 0;  // of a draft head
};

/// Intermediate values of a pass of T rows. Grows with the largest pass and is reused.
struct Workspace {
  /// What a thread keeps to itself.
  struct Private {
    FloatBuffer normed;                     // [T, D]
    FloatBuffer wide;                       // [T, 2 D] FusionSpec: what attention reads
    FloatBuffer latent;                     // [T, query_rank + kv_rank] normed
    FloatBuffer key;                        // [T, head_dim] of one kv head, on its way to the cache
    FloatBuffer value;                      // [T, value_dim] the same
    FloatBuffer router_logits;              // [T, E]
    FloatBuffer expert_weight;              // [T, k]
    FloatBuffer shared_weight;              // [T] of the shared expert
    FloatBuffer attention;                  // scratch of tree_attention
    std::vector<kernels::BestLogit> best;   // [T]
    std::vector<std::int32_t> expert;       // [T, k]
    std::vector<std::int32_t> only_expert;  // [T] zeros
    kernels::MoePlan plan;
    kernels::MoePlan shared_plan;  // every row to the one shared expert
  };

  // Shared by the team.
  FloatBuffer x;         // [T, D] the residual stream
  FloatBuffer qkv;       // [T, qkv.rows()]
  FloatBuffer query;     // [T, heads * head_dim] latent: from low rank
  FloatBuffer kv;        // [T, heads * (nope_dim + value_dim)] latent: from low rank
  FloatBuffer attended;  // [T, heads * value_dim]
  FloatBuffer hidden;    // [T * k, width], then [T, shared width]
  FloatBuffer down;      // [T * k, D]
  FloatBuffer branch;    // [T, D] BlockOrder::kSandwich: what a norm still separates from x
  // FusionSpec:
  FloatBuffer features;      // [T, fusion_inputs()] what fc reads
  FloatBuffer embedded;      // [T, D] wide: embeddings
  FloatBuffer draft_logits;  // [T, draft_vocab_size] wide
  std::vector<Private> own;

  /// Makes room for `rows` rows over `positions` keys on as many threads as `own` has.
  void reserve(const ModelSpec& spec, std::int64_t rows, std::int64_t positions);
  std::int64_t bytes() const;
};

}  // namespace specmoe::nn
