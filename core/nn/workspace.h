#pragma once

#include <cstdint>
#include <vector>

#include "core/nn/float_buffer.h"
#include "core/nn/model_spec.h"
#include "kernels/moe_router.h"

namespace specmoe::nn {

/// Intermediate values of a pass of T rows. Grows with the largest pass and is reused.
struct Workspace {
  /// What a thread keeps to itself.
  struct Private {
    FloatBuffer normed;                // [T, D]
    FloatBuffer router_logits;         // [T, E]
    FloatBuffer expert_weight;         // [T, k]
    FloatBuffer attention;             // scratch of tree_attention
    std::vector<std::int32_t> expert;  // [T, k]
    kernels::MoePlan plan;
  };

  // Shared by the team.
  FloatBuffer x;         // [T, D] the residual stream
  FloatBuffer qkv;       // [T, (heads + 2 kv_heads) * head_dim]
  FloatBuffer attended;  // [T, heads * head_dim]
  FloatBuffer hidden;    // [T * k, width]
  FloatBuffer up;        // [T, width], only with biases
  FloatBuffer down;      // [T * k, D]
  std::vector<Private> own;

  /// Makes room for `rows` rows over `positions` keys on as many threads as `own` has.
  void reserve(const ModelSpec& spec, std::int64_t rows, std::int64_t positions);
  std::int64_t bytes() const;
};

}  // namespace specmoe::nn
