#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "core/sampling_params.h"
#include "core/types.h"

namespace specmoe::test {

/// Penalties as they are defined, over the whole vocabulary and in double.
inline std::vector<double> penalised(std::span<const float> logits, std::span<const TokenId> prompt,
                                     std::span<const TokenId> output, const SamplingParams& sampling) {
  std::vector<double> result(logits.begin(), logits.end());
  for (TokenId x = 0; x < static_cast<TokenId>(result.size()); ++x) {
    const auto in_prompt = std::count(prompt.begin(), prompt.end(), x);
    const auto in_output = std::count(output.begin(), output.end(), x);
    const double r = sampling.repetition_penalty;
    if (in_prompt + in_output > 0) result[x] = result[x] > 0 ? result[x] / r : result[x] * r;
    result[x] -= sampling.frequency_penalty * static_cast<double>(in_output);
    if (in_output > 0) result[x] -= sampling.presence_penalty;
  }
  return result;
}

}  // namespace specmoe::test
