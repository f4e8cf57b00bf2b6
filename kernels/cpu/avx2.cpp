// The AVX2 + FMA kernels. The sources under kernels/cpu/simd/ are written once on a small vector type and included here
// in the instruction set's own namespace.
#include "kernels/cpu/simd/outside.h"

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
#include "kernels/cpu/simd/every_kernel.h"
// clang-format on
#pragma GCC pop_options
