#pragma once

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// out[t] = weight * (x[t] - mean(x[t])) / sqrt(var(x[t]) + eps) + bias.
///
/// x       [T, D]
/// weight  [D]
/// bias    [D]
/// out     [T, D], may be x
/// Sums run in one fixed order, whatever T.
extern Kernel<void(Rows<const float> x, const float* weight, const float* bias, float eps, Rows<float> out)> layer_norm;

}  // namespace specmoe::kernels
