#pragma once

#include <cstdint>
#include <vector>

#include "core/nn/model_spec.h"
#include "core/nn/tensor_map.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

/// Packed weights of one feed-forward part. Without biases a dense part is a mixture of one expert; with them gate and
/// up are matrices of their own.
struct FfnWeights {
  kernels::PackedMatrix router;                // [E, D], always float32: choices must not flip by rounding
  std::vector<kernels::PackedMatrix> gate_up;  // [E] of [2 * width, D], empty with biases
  std::vector<kernels::PackedMatrix> down;     // [E] of [D, width]
  kernels::PackedMatrix gate, up;              // [width, D], only with biases
  std::vector<float> gate_bias, up_bias, down_bias;
};

struct LayerWeights {
  std::vector<float> attention_norm, ffn_norm;  // [D]
  kernels::PackedMatrix qkv;                    // [(heads + 2 * kv_heads) * head_dim, D]
  kernels::PackedMatrix output;                 // [D, heads * head_dim]
  std::vector<float> qkv_bias, output_bias;     // empty: none
  FfnWeights ffn;
};

/// Of an embedding table beside weights of `dtype`: its rows are looked up, not multiplied, so int8 would save nothing.
inline kernels::DType table_dtype(kernels::DType dtype) {
  return dtype == kernels::DType::kInt8 ? kernels::DType::kBFloat16 : dtype;
}

/// The whole model as the kernels read it.
struct Weights {
  kernels::DType dtype = kernels::DType::kFloat32;
  std::vector<std::byte> embedding;  // row-major [V, D] in table_dtype(dtype); empty when tied: the packed head's rows
  kernels::PackedMatrix head;        // [V, D]
  std::vector<float> final_norm;     // [D]
  std::vector<LayerWeights> layers;

  /// out[0, D) = embedding of `token`.
  void embed(TokenId token, float* out) const;
};

/// Packs a mapped checkpoint, matrix by matrix, spread over the team.
Weights pack_weights(const ModelSpec& spec, const ModelTensors& tensors, kernels::DType dtype, kernels::Backend backend,
                     kernels::ThreadPool& pool);

}  // namespace specmoe::nn
