#pragma once

#include <cstdint>

namespace specmoe::kernels {

/// Cuts a distribution to its top_k largest entries (0: no cut), then to the smallest set of largest entries holding at
/// least top_p of what is left (1: no cut), and renormalises. Of equal entries the lower index counts as larger.
///
/// probs    [vocab] in and out, sums to 1
/// scratch  [vocab] indices, only touched when there is a cut
void cut_probabilities(float* probs, std::int64_t vocab, std::int64_t top_k, float top_p, std::int32_t* scratch);

}  // namespace specmoe::kernels
