#pragma once

// The shared sources of all kernels, in the order in which they need one another. Comes after a vector, such as avx2.h.

// clang-format off
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/panels.h"
#include "kernels/cpu/simd/tile.h"
#include "kernels/cpu/simd/tile_group.h"
#include "kernels/cpu/simd/multiply.h"
#include "kernels/cpu/simd/argmax.h"
#include "kernels/cpu/simd/linear.h"
#include "kernels/cpu/simd/moe_ffn.h"
#include "kernels/cpu/simd/moe_router.h"
#include "kernels/cpu/simd/norm_rope.h"
#include "kernels/cpu/simd/sampling.h"
#include "kernels/cpu/simd/attention_chunk.h"
#include "kernels/cpu/simd/tree_attention.h"
// clang-format on
