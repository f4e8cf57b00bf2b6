#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/model_spec.h"
#include "core/nn/tensor_map.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

/// Medusa heads as a folder describes them: each is `blocks` times x + silu(W x + b), then an output matrix.
struct MedusaSpec {
  std::string name;  // folder name
  int heads = 0;
  int blocks = 0;
  int hidden_size = 0;
  int vocab_size = 0;
  bool own_output = false;  // else every head ends in the target's output matrix
  std::string prefix;       // of tensor names: "medusa_head."

  std::int64_t parameters() const;                        // of all heads
  std::int64_t weight_bytes(kernels::DType dtype) const;  // the same, packed
  std::int64_t read_bytes(kernels::DType dtype) const;    // packed, by one head, the target's output matrix included
};

/// The tensors of one head. The output is without data where it is the target's.
struct MedusaTensors {
  std::vector<LinearTensors> blocks;
  kernels::WeightView output;
};

/// Opens what the authors' folders hold once their medusa_lm_head.pt is converted, medusa_lm_head.safetensors, or else
/// what models' folders hold.
Checkpoint open_medusa_heads(const std::string& path);

/// How many heads there are is read from the tensors. Throws Error for heads made for another target.
MedusaSpec read_medusa_heads(const Checkpoint& checkpoint, const ModelSpec& target);

/// Finds every tensor of every head. Throws one Error that lists all that are missing, extra or mis-shaped. The views
/// borrow from the checkpoint.
std::vector<MedusaTensors> map_medusa_heads(const MedusaSpec& spec, const Checkpoint& checkpoint);

/// One head as the kernels read it.
struct PackedMedusaHead {
  struct Block {
    kernels::PackedMatrix weight;  // [D, D]
    std::vector<float> bias;       // [D]
  };
  std::vector<Block> blocks;
  kernels::PackedMatrix output;  // [V, D]; no rows: the target's
};

/// The heads in a folder with their weights.
struct PackedMedusa {
  MedusaSpec spec;
  std::vector<PackedMedusaHead> heads;
};
PackedMedusa pack_medusa_heads(const std::string& path, const ModelSpec& target, kernels::DType dtype,
                               kernels::Backend backend, kernels::ThreadPool& pool);

}  // namespace specmoe::nn
