// The AVX-512 BF16 products on emulated instructions: see avx512_emulation_test.cpp.
#include <array>
#include <cstring>

#include "kernels/cpu/simd/outside.h"
#include "tests/support/kernel_data.h"

#undef SPECMOE_KERNEL
#define SPECMOE_KERNEL(kernel, backend, function) \
  static const bool kernel##_##function##_stands_in = stand_in(backend, [] { kernel.add(backend, function); })

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SPECMOE_SIMD avx512_bf16_emulated
// clang-format off: the vector comes first
#include "tests/kernels/emulated_avx512.h"
namespace specmoe::kernels::avx512_bf16_emulated {
inline constexpr Backend kBackend = Backend::kAvx512Bf16;
inline constexpr Backend kAllTypes = Backend::kAvx512;
constexpr bool takes(DType dtype) { return dtype != DType::kFloat32; }
}  // namespace specmoe::kernels::avx512_bf16_emulated
#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/simd/avx512_bf16.h"
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/panels.h"
#include "kernels/cpu/simd/rounded_inputs.h"
#include "kernels/cpu/simd/tile_bf16.h"
#include "kernels/cpu/simd/tile_group.h"
#include "kernels/cpu/simd/multiply.h"
#include "kernels/cpu/simd/argmax.h"
#include "kernels/cpu/simd/linear.h"
#include "kernels/cpu/simd/moe_ffn.h"
// clang-format on
#pragma GCC pop_options
