// The AVX2 + FMA kernels. The sources under kernels/cpu/simd/ are written once on a small vector type and included here
// in the instruction set's own namespace. Everything from elsewhere is included before the target changes: an inline
// function of a header compiled with AVX2 could be the copy the linker keeps for the whole program.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/probability_cut.h"
#include "kernels/cpu/router_parts.h"
#include "kernels/element.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/moe_ffn.h"
#include "kernels/moe_router.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/tree_attention.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SPECMOE_SIMD avx2
// clang-format off: the vector comes first
namespace specmoe::kernels::avx2 {
inline constexpr Backend kBackend = Backend::kAvx2;
inline constexpr Backend kAllTypes = Backend::kAvx2;
constexpr bool takes(DType /*dtype*/) { return true; }
}  // namespace specmoe::kernels::avx2
#include "kernels/cpu/simd/avx2.h"
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
#pragma GCC pop_options
