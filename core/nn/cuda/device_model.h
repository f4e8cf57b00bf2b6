#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "core/nn/model_spec.h"
#include "kernels/cuda/decode_ops.h"

namespace specmoe::nn::cuda {

/// Weights and places of multi-head latent attention; without query_up queries come from one plain projection.
struct DeviceLatent {
  int query_rank = 0;
  int kv_rank = 0;  // 0: the layer has no latent attention
  int nope_dim = 0;
  int rope_dim = 0;
  float eps = 0.0F;
  const float* query_norm = nullptr;     // [query_rank]
  const float* kv_norm = nullptr;        // [kv_rank]
  kernels::cuda::DeviceMatrix query_up;  // [heads * head_dim, query_rank]
  kernels::cuda::DeviceMatrix kv_up;     // [heads * (nope_dim + value_dim), kv_rank]
};

/// An expert that every row uses.
struct DeviceSharedExpert {
  kernels::cuda::DeviceMatrices gate_up, down;  // one each
  kernels::cuda::DeviceMatrix gate;             // [1, hidden] float32; without rows: none
  int width = 0;                                // 0: there is no shared expert
};

struct DeviceFfn {
  kernels::cuda::DeviceMatrix router;     // [E, hidden] float32; without rows: a dense layer
  const float* router_bias = nullptr;     // [E]
  const float* choice_bias = nullptr;     // [E]
  kernels::Routing routing;               // its scale times product_scale, but for scales_input
  bool scales_input = false;              // the weights multiply what goes into gate and up
  kernels::cuda::DeviceMatrices gate_up;  // [2 * width, hidden] each, packed with pack_gate_up
  kernels::cuda::DeviceMatrices down;     // [hidden, width] each
  const float* up_bias = nullptr;         // [E, 2 * width] gate, then up
  const float* down_bias = nullptr;       // [E, hidden]
  kernels::Activation activation;
  int width = 0;
  DeviceSharedExpert shared;

  bool routed() const { return router.rows > 0; }
  int experts_per_token() const { return routed() ? routing.experts_per_token : 1; }
};

/// One layer on the device. Biases are null where there are none.
struct DeviceLayer {
  kernels::cuda::DeviceNorm attention_norm, ffn_norm;
  kernels::cuda::DeviceMatrix qkv;     // as LayerWeights::qkv
  kernels::cuda::DeviceMatrix output;  // [hidden, heads * attention.value_size()]
  const float* qkv_bias = nullptr;
  const float* output_bias = nullptr;
  kernels::cuda::AttentionShape attention;
  kernels::cuda::HeadRule heads;
  DeviceFfn ffn;

  const float* flat_query_norm = nullptr;  // [heads * head_dim] of all heads as one vector, before all else
  const float* flat_key_norm = nullptr;    // [kv_heads * head_dim]
  DeviceLatent latent;
  kernels::cuda::DeviceNorm attention_out_norm, ffn_out_norm;  // of a sandwich; without weights: none

  /// Whether rope_append() does all that is to be done to heads.
  bool plain_heads() const {
    return attention.value_dim == 0 && heads.clip <= 0.0F && heads.long_cos_sin == nullptr && !heads.norm_after &&
           heads.temperature_floor <= 0.0F;
  }
};

/// What a draft head has besides. Norms that it lacks are null.
struct DeviceFusion {
  FusionSpec spec;
  kernels::cuda::DeviceMatrix fc;
  const float* bias = nullptr;            // [hidden]
  const float* embedding_norm = nullptr;  // [hidden]
  const float* feature_norm = nullptr;    // as FusionWeights has it
  const std::int32_t* places = nullptr;   // [vocab] of spread_logits(); null: it proposes all of the target's tokens
};

/// A decoder-only transformer on the device. Borrowed memory.
struct DeviceModel {
  int hidden = 0;
  int vocab = 0;
  float norm_eps = 1e-5F;
  const void* embedding = nullptr;  // [vocab, hidden]; null: embedding_panels
  kernels::DType embedding_dtype = kernels::DType::kFloat32;
  kernels::cuda::DeviceMatrix embedding_panels;  // an output matrix whose rows are the embeddings
  kernels::cuda::DeviceNorm final_norm;
  kernels::cuda::DeviceMatrix head;  // [vocab, hidden], or fewer tokens of a draft head
  const float* head_bias = nullptr;
  float embedding_scale = 1.0F;
  float residual_scale = 1.0F;  // of the branches of a sandwich
  float product_scale = 1.0F;   // ModelSpec::product_scale()
  kernels::LogitShape logits;
  std::vector<DeviceLayer> layers;
  std::optional<DeviceFusion> fusion;

  bool proposes_blocks() const { return fusion && fusion->spec.block_size > 0; }
  /// Values of a draft head's row that its target, or it itself, hands to it.
  int feature_cols() const { return std::max(hidden, fusion->spec.taps * fusion->spec.tap_size); }
};

}  // namespace specmoe::nn::cuda
