#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/kernel.h"
#include "kernels/moe_router.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// What moe_up makes of its products; plain silu(gate) * up when left as it is.
struct MoeUp {
  Activation activation;
  const float* input_weight = nullptr;  // [T * k] multiplies the products of a pair; null: 1
  const float* bias = nullptr;          // [E, 2 * I] added to gate and then up products; null: none
};

/// hidden[p] = activation(gate_e x[t], up_e x[t]) for every pair p = (t, rank) of the plan, e the pair's expert.
///
/// x        [T, D]; rounded like the inputs of packed_linear, as is hidden below
/// gate_up  [E] packed with PackedMatrix::pack_gate_up, each [2 * I, D]
/// hidden   [T * k, I]
/// shard    splits the panel pairs of every expert, so the load is even whatever the routing
extern Kernel<void(Rows<const float> x, const PackedMatrix* gate_up, const MoePlan& plan, const MoeUp& how,
                   Rows<float> hidden, Shard shard)>
    moe_up;

/// out[t] = residual[t] + sum over ranks r = 0..k-1, in that order, of weight[t, r] * (down_e hidden[t * k + r] +
/// bias).
///
/// hidden   [T * k, I]
/// down     [E] packed [D, I]
/// weight   [T, k]
/// bias     [E, D] or null
/// residual [T, D], may be out; empty (data null): 0
/// scratch  [T * k, D] shared by the team; a thread touches only its own columns
/// shard    splits the output columns
extern Kernel<void(Rows<const float> hidden, const PackedMatrix* down, const MoePlan& plan, const float* weight,
                   const float* bias, Rows<const float> residual, Rows<float> scratch, Rows<float> out, Shard shard)>
    moe_down;

}  // namespace specmoe::kernels
