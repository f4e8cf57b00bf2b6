// The AVX-512 kernels on emulated instructions, so that what they do with vectors of sixteen is tested on processors
// without AVX-512: the twin tests of this program then run them as the back end "avx512".
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

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
#include "tests/support/kernel_data.h"

#undef SPECMOE_KERNEL
#define SPECMOE_KERNEL(kernel, backend, function) \
  static const bool kernel##_##function##_stands_in = stand_in(backend, [] { kernel.add(backend, function); })

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SPECMOE_SIMD avx512_emulated
// clang-format off: the vector comes first
#include "tests/kernels/emulated_avx512.h"
namespace specmoe::kernels::avx512_emulated {
inline constexpr Backend kBackend = Backend::kAvx512;
inline constexpr Backend kAllTypes = Backend::kAvx512;
constexpr bool takes(DType /*dtype*/) { return true; }
}  // namespace specmoe::kernels::avx512_emulated
#include "kernels/cpu/simd/avx512.h"
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
