#pragma once

#include <cmath>

#include "kernels/kernel.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// out[t, n] = sum_k x[t, k] * W[n, k] (+ bias[n]) (+ residual[t, n]), float32 accumulation over ascending k.
///
/// x         [T, K] float32; rounded to bfloat16 first where rounds_inputs(back end, type of the weights)
/// weight    packed [N, K], float32 or bfloat16
/// bias      [N] or null
/// residual  [T, N] or empty (data null); may be the same memory as out
/// out       [T, N]
/// panels    of the weight to multiply by: only their columns are read and written. A team's share: weight.share(shard)
/// Row t of the result does not depend on T.
extern Kernel<void(Rows<const float> x, const PackedMatrix& weight, const float* bias, Rows<const float> residual,
                   Rows<float> out, const Ranges& panels)>
    packed_linear;

/// What becomes of the products of an output head before they are logits.
struct LogitShape {
  float scale = 1.0f;    // multiplies them
  float softcap = 0.0f;  // c > 0: then c * tanh(logit / c)

  bool plain() const { return scale == 1.0f && softcap <= 0.0f; }
  void apply(float* logits, std::int64_t n) const;
};

/// The largest of the logits seen so far, the first among equals. NaN never wins.
struct BestLogit {
  float value = -INFINITY;
  std::int32_t index = -1;  // -1: no number yet

  /// Of the logits seen so far and others, whichever came first, the best.
  void offer(const BestLogit& other) {
    const bool better = other.value > value || (other.value == value && other.index < index);
    if (other.index >= 0 && (index < 0 || better)) *this = other;
  }
};

/// The best logit of each row over this shard's outputs: those of packed_linear without residual, to the bit, then
/// shaped; no row of them is ever written. Over all shards, offer() gives what row_argmax says of whole rows.
///
/// best  [T] overwritten; the thread's own
extern Kernel<void(Rows<const float> x, const PackedMatrix& weight, const float* bias, const LogitShape& shape,
                   BestLogit* best, Shard shard)>
    linear_argmax;

}  // namespace specmoe::kernels
