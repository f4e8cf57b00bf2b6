#pragma once

#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/model_spec.h"
#include "kernels/packed_matrix.h"

namespace specmoe::nn {

/// A linear layer in a checkpoint; bias.data is null when the spec has none. Vectors are one row.
struct LinearTensors {
  kernels::WeightView weight;
  kernels::WeightView bias;
};

struct ExpertTensors {
  LinearTensors gate, up, down;
};

struct LayerTensors {
  kernels::WeightView attention_norm, ffn_norm;
  LinearTensors query, key, value, output;
  kernels::WeightView router;          // data null: dense
  std::vector<ExpertTensors> experts;  // one when dense
};

/// Every tensor of a model by its role, as it lies in the checkpoint.
struct ModelTensors {
  kernels::WeightView embedding, final_norm, head;
  bool tied = false;  // head is the embedding
  std::vector<LayerTensors> layers;
};

/// Finds every tensor the spec calls for. Throws one Error that lists all that are missing, extra or mis-shaped.
/// The views borrow from the checkpoint.
ModelTensors map_tensors(const ModelSpec& spec, const Checkpoint& checkpoint);

}  // namespace specmoe::nn
