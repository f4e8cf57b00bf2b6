#pragma once

#include <cstdint>

#include "kernels/sampling.h"

namespace specmoe::kernels {

/// Cuts a distribution as sampling_probs() says, and renormalises. Of equal entries the lower index counts as larger.
///
/// probs    [vocab] in and out, sums to 1
/// largest  of them
/// scratch  [vocab] indices, only touched when there is a cut
void cut_probabilities(float* probs, std::int64_t vocab, float largest, const SamplingRule& rule,
                       std::int32_t* scratch);

}  // namespace specmoe::kernels
