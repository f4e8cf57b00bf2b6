#pragma once

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// out[t] = weight * x[t] / sqrt(mean(x[t]^2) + eps).
///
/// x       [T, D]
/// weight  [D]
/// out     [T, D], may be x
/// The sum of squares runs in one fixed order, whatever T.
extern Kernel<void(Rows<const float> x, const float* weight, float eps, Rows<float> out)> rms_norm;

}  // namespace specmoe::kernels
