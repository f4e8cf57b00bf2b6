// The AVX-512 kernels (float32 products of widened bfloat16: the bf16 product instruction rounds otherwise). The
// sources under kernels/cpu/simd/ are written once on a small vector type and included here in the instruction set's
// own namespace.
#include "kernels/cpu/simd/outside.h"

#pragma GCC push_options
// False alarms inside the compiler's own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#define SPECMOE_SIMD avx512
// clang-format off: the vector comes first
namespace specmoe::kernels::avx512 {
inline constexpr Backend kBackend = Backend::kAvx512;
inline constexpr Backend kAllTypes = Backend::kAvx512;
constexpr bool takes(DType /*dtype*/) { return true; }
}  // namespace specmoe::kernels::avx512
#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/simd/every_kernel.h"
// clang-format on
#pragma GCC pop_options
