#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// From logits to the chosen experts of a token and their weights. A score is made of each logit, the k experts with
/// the largest scores are chosen, and weights are made of the scores.
struct Routing {
  enum class Score {
    kSoftmax,          // softmax over all experts
    kSoftmaxOfChosen,  // chosen by logit, then softmax over the chosen ones alone
    kSigmoid,
    kSparsemixer,  // two rounds of arg max and softmax over the experts close to it (Phi-3.5-MoE, arXiv:2409.12136)
  };
  enum class GroupScore { kMax, kSumOfTopTwo };

  int experts_per_token = 0;
  Score score = Score::kSoftmax;
  bool renormalise = true;  // kSoftmax, kSigmoid: weights are divided by their sum + epsilon
  float epsilon = 0.0f;
  float scale = 1.0f;  // multiplies weights, after all else
  /// Experts are cut into `groups` equal groups; only those of the best `kept_groups` of them can be chosen.
  int groups = 1;
  int kept_groups = 1;
  GroupScore group_score = GroupScore::kMax;
  float jitter = 0.01f;  // kSparsemixer: experts up to a relative 2 * jitter below the best one take part
};

/// Chooses the experts of every row; of equal ones the lower id.
///
/// logits       [T, E], overwritten
/// choice_bias  [E] added to the scores while choosing, or null
/// expert       [T, k] chosen ids, best first
/// weight       [T, k] their weights
extern Kernel<void(Rows<float> logits, const Routing& routing, const float* choice_bias, std::int32_t* expert,
                   float* weight)>
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
