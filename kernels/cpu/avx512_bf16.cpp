// The products on the bfloat16 instruction of AVX-512: twice the arithmetic rate of float32 on processors that have it
// and no tiles, and no widening. Inputs are rounded to bfloat16 first. float32 weights go to the AVX-512 kernels. The
// sources under kernels/cpu/simd/ are written once on a small vector type and included here in the instruction set's
// own namespace.
#include "kernels/cpu/simd/outside.h"

#pragma GCC push_options
// False alarms inside the compiler's own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,prefer-vector-width=512")
#define SPECMOE_SIMD avx512_bf16
// clang-format off: the vector comes first
namespace specmoe::kernels::avx512_bf16 {
inline constexpr Backend kBackend = Backend::kAvx512Bf16;
inline constexpr Backend kAllTypes = Backend::kAvx512;
constexpr bool takes(DType dtype) { return dtype != DType::kFloat32; }
}  // namespace specmoe::kernels::avx512_bf16
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
