#pragma once

#include <cstdint>

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// Index of the largest element of each row; ties go to the lower index. NaN never wins; a row of NaNs gives -1.
extern Kernel<void(Rows<const float> x, std::int32_t* argmax)> row_argmax;

/// probs = softmax(logits / temperature), then cut to the k largest, then to the smallest set of largest whose mass
/// reaches top_p, then renormalised. Ties at a cut keep the lower index.
///
/// logits       [V]
/// temperature  > 0
/// top_k        0: no cut
/// top_p        1: no cut
/// probs        [V] out, sums to 1
/// scratch      [V] indices, only touched when there is a cut
extern Kernel<void(const float* logits, std::int64_t vocab, float temperature, std::int64_t top_k, float top_p,
                   float* probs, std::int32_t* scratch)>
    sampling_probs;

}  // namespace specmoe::kernels
