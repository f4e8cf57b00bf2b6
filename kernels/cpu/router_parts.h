#pragma once

#include <cstdint>

namespace specmoe::kernels {

/// chosen[0, k) = the k largest logits by falling value, the lower id first among equal ones; valid ids even for NaN.
void choose_experts(const float* logits, std::int64_t experts, std::int64_t k, std::int32_t* chosen);

/// Divides by the sum.
void normalise(float* weight, std::int64_t k);

}  // namespace specmoe::kernels
