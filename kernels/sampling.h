#pragma once

#include <cstdint>

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// Index of the largest element of each row; ties go to the lower index. NaN never wins; a row of NaNs gives -1.
extern Kernel<void(Rows<const float> x, std::int32_t* argmax)> row_argmax;

/// How logits become probabilities to sample from; nothing is cut unless it says so.
struct SamplingRule {
  float temperature = 1.0f;  // > 0
  std::int64_t top_k = 0;    // 0: no cut
  float top_p = 1.0f;        // 1: no cut
  float min_p = 0.0f;        // 0: no cut

  bool operator==(const SamplingRule&) const = default;
};

/// probs = softmax(logits / temperature), then cut to the k largest, then to the smallest set of largest whose mass
/// reaches top_p of what is left, then to those that are at least min_p times the largest, then renormalised. Ties at
/// the first two cuts keep the lower index.
///
/// logits   [V]
/// probs    [V] out, sums to 1
/// scratch  [V] indices, only touched when there is a cut
extern Kernel<void(const float* logits, std::int64_t vocab, const SamplingRule& rule, float* probs,
                   std::int32_t* scratch)>
    sampling_probs;

}  // namespace specmoe::kernels
