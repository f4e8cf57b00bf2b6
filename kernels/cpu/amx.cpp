// The products on AMX tiles: one instruction multiplies up to 16 rows of inputs, rounded to bfloat16, with 16 outputs
// of bfloat16 weights over 32 inputs. int8 weights are widened to bfloat16 on their way into a tile. Rows do not see
// each other in it, so a row keeps its bits whatever their number. float32 weights go to the AVX-512 kernels.
#include "kernels/cpu/simd/outside.h"

#pragma GCC push_options
// False alarms inside the compiler's own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,prefer-vector-width=512")
#define SPECMOE_SIMD amx
// clang-format off: the vector comes first
namespace specmoe::kernels::amx {
inline constexpr Backend kBackend = Backend::kAmx;
inline constexpr Backend kAllTypes = Backend::kAvx512;
constexpr bool takes(DType dtype) { return dtype != DType::kFloat32; }
}  // namespace specmoe::kernels::amx
#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/simd/avx512_bf16.h"
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/panels.h"
#include "kernels/cpu/simd/rounded_inputs.h"
#include "kernels/cpu/simd/amx_registers.h"
#include "kernels/cpu/simd/tile_amx.h"
#include "kernels/cpu/simd/multiply.h"
#include "kernels/cpu/simd/argmax.h"
#include "kernels/cpu/simd/linear.h"
#include "kernels/cpu/simd/moe_ffn.h"
// clang-format on
#pragma GCC pop_options
