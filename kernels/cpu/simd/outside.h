#pragma once

// Everything from elsewhere that the shared sources beside this file include: before the target changes, because an
// inline function of a header compiled for one instruction set could be the copy the linker keeps for the whole
// program.
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
