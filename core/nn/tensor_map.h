#pragma once

#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/model_spec.h"
#include "kernels/packed_matrix.h"

namespace specmoe::nn {

// Views without data stand for what the spec does not have. Vectors are one row. Every role has the layout of its
// comment, however the checkpoint keeps it; heads that turn interleaved are put into half layout.

struct LinearTensors {
  kernels::WeightView weight;
  kernels::WeightView bias;
};

struct NormTensors {
  kernels::WeightView weight;
  kernels::WeightView bias;  // NormKind::kLayer
};

struct ExpertTensors {
  LinearTensors gate, up, down;
};

struct LayerTensors {
  NormTensors attention_norm, ffn_norm;
  NormTensors attention_out_norm, ffn_out_norm;  // BlockOrder::kSandwich
  LinearTensors query;                           // all heads; with a latent query_rank: from low rank to all heads
  LinearTensors key, value, output;              // no key and value with latent
  kernels::WeightView query_norm, key_norm, sinks;
  LinearTensors query_down, kv_down, kv_up;  // latent
  kernels::WeightView query_down_norm, kv_down_norm;
  LinearTensors router;  // no weight: dense
  kernels::WeightView choice_bias;
  std::vector<ExpertTensors> experts;  // one when dense
  ExpertTensors shared;
  kernels::WeightView shared_scale;
};

/// What a draft head has besides.
struct FusionTensors {
  LinearTensors fc;
  kernels::WeightView embedding_norm;
  std::vector<kernels::WeightView> feature_norms;
};

/// How a tensor is packed.
enum class TensorUse {
  kMatrix,  // multiplied: in the model's type
  kTable,   // looked up: in table_dtype() of it
  kExact,   // vectors and routers: as it is
};

/// A tensor that the model uses, as its checkpoint keeps it.
struct StoredTensor {
  std::string name;                // whole, that of an unquantised checkpoint
  const Tensor* source = nullptr;  // the one in the file that holds the values
  int layer = -1;                  // -1: of no layer
  TensorUse use = TensorUse::kExact;
  std::int64_t experts = 1;       // matrices in one tensor
  std::int64_t rows = 0;          // of each: outputs
  std::int64_t cols = 0;          // inputs
  bool by_inputs = false;         // an unquantised checkpoint keeps matrices [cols, rows]
  bool source_by_inputs = false;  // and so does this one
  kernels::WeightView view;       // all matrices one under another
};

/// Every tensor of a model by its role.
struct ModelTensors {
  kernels::WeightView embedding, head, head_bias;  // a draft head may have to borrow the first two
  NormTensors final_norm;
  bool tied = false;  // head is the embedding
  std::vector<LayerTensors> layers;
  FusionTensors fusion;
  std::vector<StoredTensor> stored;  // the same tensors one by one
};

/// Finds every tensor the spec calls for. Throws one Error that lists all that are missing, extra or mis-shaped.
/// The views borrow from the checkpoint.
ModelTensors map_tensors(const ModelSpec& spec, const Checkpoint& checkpoint);

}  // namespace specmoe::nn
