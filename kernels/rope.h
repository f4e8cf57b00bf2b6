#pragma once

#include <cstdint>

#include "kernels/kernel.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// Rotates the first 2 * half elements of one head in place, half layout: with x1, x2 the two halves,
/// y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin.
///
/// x        [T, head_dim] rows of one head
/// cos_sin  [positions, 2 * half]: for a position, `half` cosines then `half` sines
/// position [T] absolute positions
extern Kernel<void(Rows<float> x, const float* cos_sin, std::int64_t half, const std::int32_t* position)> rope;

}  // namespace specmoe::kernels
