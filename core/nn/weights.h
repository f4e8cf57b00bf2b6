#pragma once

#include <cstdint>
#include <vector>

#include "core/nn/model_spec.h"
#include "core/nn/tensor_map.h"
#include "core/nn/weight_cache.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

// Vectors of what a spec does not have are empty, and such matrices have no rows.

/// What kernels take for such a vector.
inline const float* data_or_null(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

/// NormKind::kRmsPlusOne is folded into the weight.
struct NormWeights {
  std::vector<float> weight, bias;
};

/// Packed weights of one feed-forward part; a dense one is a mixture of one expert.
struct FfnWeights {
  kernels::PackedMatrix router;                       // [E, D], always float32: choices must not flip by rounding
  std::vector<float> router_bias, choice_bias;        // [E]
  std::vector<kernels::PackedMatrix> gate_up;         // [E] of [2 * width, D]
  std::vector<kernels::PackedMatrix> down;            // [E] of [D, width]
  std::vector<float> up_bias, down_bias;              // [E, 2 * width] gate then up, [E, D]
  kernels::PackedMatrix shared_gate_up, shared_down;  // of the shared expert
  kernels::PackedMatrix shared_scale;                 // [1, D], float32 like the router
};

struct LayerWeights {
  NormWeights attention_norm, ffn_norm, attention_out_norm, ffn_out_norm;
  /// What is multiplied with the normed stream: [(heads + 2 * kv_heads) * head_dim, D]. With latent: [query_rank +
  /// kv_rank + rope_dim, D], or all query heads in place of query_rank when that is 0.
  kernels::PackedMatrix qkv;
  std::vector<float> qkv_bias;
  kernels::PackedMatrix query_up;                    // latent: [heads * head_dim, query_rank]
  kernels::PackedMatrix kv_up;                       // latent: [heads * (nope_dim + value_dim), kv_rank]
  std::vector<float> query_down_norm, kv_down_norm;  // latent: [query_rank], [kv_rank]
  std::vector<float> query_norm, key_norm;           // [head_dim], or all heads one after another with QkNorm::kFlat
  std::vector<float> sinks;                          // [heads]
  kernels::PackedMatrix output;                      // [D, heads * value_dim]
  std::vector<float> output_bias;                    // times product_scale()
  FfnWeights ffn;
};

/// What a draft head has besides: see FusionSpec.
struct FusionWeights {
  kernels::PackedMatrix fc;             // [D, fusion_inputs()]
  std::vector<float> bias;              // [D]
  std::vector<float> embedding_norm;    // [D]
  std::vector<float> feature_norm;      // [feature_norm_size()]
  std::vector<TokenId> token_of_draft;  // [draft_vocab_size] ascending; empty: they are the target's
};

/// Of an embedding table beside weights of `dtype`: its rows are looked up, not multiplied, so int8 would save nothing.
inline kernels::DType table_dtype(kernels::DType dtype) {
  return dtype == kernels::DType::kInt8 ? kernels::DType::kBFloat16 : dtype;
}

/// The whole model as the kernels read it.
struct Weights {
  kernels::DType dtype = kernels::DType::kFloat32;
  std::vector<std::byte> embedding;  // row-major [V, D] in table_dtype(dtype); empty when tied: the packed head's rows
  kernels::PackedMatrix head;        // [head_rows(), D]
  std::vector<float> head_bias;      // [V]
  NormWeights final_norm;
  std::vector<LayerWeights> layers;
  FusionWeights fusion;

  /// out[0, D) = embedding of `token`.
  void embed(TokenId token, float* out) const;
};

/// Packs a mapped checkpoint, spread over the team, or takes its weights from a cache.
Weights pack_weights(const ModelSpec& spec, const ModelTensors& tensors, kernels::DType dtype, kernels::Backend backend,
                     kernels::ThreadPool& pool, const WeightCache* cache = nullptr, const WorkProgress& progress = {});

}  // namespace specmoe::nn
