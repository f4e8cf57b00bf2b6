#pragma once

#include "kernels/kernel.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// out[t, n] = sum_k x[t, k] * W[n, k] (+ bias[n]) (+ residual[t, n]), float32 accumulation over ascending k.
///
/// x         [T, K] float32; rounded to bfloat16 first where rounds_inputs(back end, type of the weights)
/// weight    packed [N, K], float32 or bfloat16
/// bias      [N] or null
/// residual  [T, N] or empty (data null); may be the same memory as out
/// out       [T, N]
/// shard     output panels are split over the team; a thread writes only its own columns
/// Row t of the result does not depend on T.
extern Kernel<void(Rows<const float> x, const PackedMatrix& weight, const float* bias, Rows<const float> residual,
                   Rows<float> out, Shard shard)>
    packed_linear;

}  // namespace specmoe::kernels
