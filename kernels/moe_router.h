#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// Top-k of softmax(logits) per row; ties go to the lower expert id.
///
/// logits      [T, E]
/// k           experts per token
/// renormalise divide the k weights by their sum (Mixtral does)
/// expert      [T, k] chosen ids, by falling probability
/// weight      [T, k] their weights
extern Kernel<void(Rows<const float> logits, std::int64_t k, bool renormalise, std::int32_t* expert, float* weight)>
    moe_router;

/// Which rows each active expert computes. Pair p is (row, rank): row p / k, rank p % k.
struct MoePlan {
  std::int64_t k = 0;
  std::vector<std::int32_t> experts;  // active expert ids, ascending; size A
  std::vector<std::int32_t> offsets;  // [A + 1] into pairs
  std::vector<std::int32_t> pairs;    // [T * k] pair ids grouped by expert, ascending inside a group

  /// Rebuilds the plan from moe_router's `expert` [T, k]. Does not allocate once capacity has been reached.
  void build(const std::int32_t* expert, std::int64_t rows, std::int64_t k, std::int64_t expert_count);
};

}  // namespace specmoe::kernels
