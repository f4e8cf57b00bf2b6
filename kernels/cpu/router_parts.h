#pragma once

#include <cstdint>

#include "kernels/moe_router.h"

namespace specmoe::kernels {

/// chosen[0, k) = the k largest logits by falling value, the lower id first among equal ones; valid ids even for NaN.
void choose_experts(const float* logits, std::int64_t experts, std::int64_t k, std::int32_t* chosen);

/// Whether experts are those of the largest logits, and weights a softmax over all of them: what is written for
/// vectors.
inline bool is_plain_softmax(const Routing& routing, const float* choice_bias) {
  return routing.score == Routing::Score::kSoftmax && routing.groups == 1 && choice_bias == nullptr;
}

/// Everything else, one row; overwrites its logits.
void route_row(float* logits, std::int64_t experts, const Routing& routing, const float* choice_bias,
               std::int32_t* chosen, float* weight);

/// Divides by the sum if asked to, then scales.
void finish_weights(const Routing& routing, float* weight);

}  // namespace specmoe::kernels
