// The AVX-512 kernels on emulated instructions, so that what they do with vectors of sixteen is tested on processors
// without AVX-512: the twin tests of this program then run them as the back end "avx512".
#include <array>
#include <cstring>

#include "kernels/cpu/simd/outside.h"
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
#include "kernels/cpu/simd/every_kernel.h"
// clang-format on
#pragma GCC pop_options
