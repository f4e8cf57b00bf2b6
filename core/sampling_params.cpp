#include "core/sampling_params.h"

#include <cmath>

#include "kernels/check.h"

namespace specmoe {
namespace {

/// Wider than any use: OpenAI and vLLM stop at 2 either way. Finite logits stay finite.
constexpr double kMostPenalty = 1e6;

void check_subtracted(const char* name, double penalty) {
  SPECMOE_CHECK(std::abs(penalty) <= kMostPenalty, name, " must be from ", -kMostPenalty, " to ", kMostPenalty,
                " (0: none), got ", penalty);
}

}  // namespace

void SamplingParams::validate() const {
  // A smaller one would overflow where float logits are divided by it.
  constexpr double kLeast = 1e-6;
  SPECMOE_CHECK(std::isfinite(temperature) && (temperature == 0.0 || temperature >= kLeast),
                "temperature must be 0 (greedy) or at least ", kLeast, ", got ", temperature);
  SPECMOE_CHECK(top_k >= 0, "top_k must be 0 (no cut) or more, got ", top_k);
  SPECMOE_CHECK(top_p > 0.0 && top_p <= 1.0, "top_p must be above 0 and at most 1, got ", top_p);
  SPECMOE_CHECK(min_p >= 0.0 && min_p <= 1.0, "min_p must be from 0 (no cut) to 1, got ", min_p);
  SPECMOE_CHECK(repetition_penalty >= 1.0 / kMostPenalty && repetition_penalty <= kMostPenalty,
                "repetition_penalty must be above 0 (1: none), from ", 1.0 / kMostPenalty, " to ", kMostPenalty,
                ", got ", repetition_penalty);
  check_subtracted("presence_penalty", presence_penalty);
  check_subtracted("frequency_penalty", frequency_penalty);
}

kernels::SamplingRule SamplingParams::rule() const {
  return {static_cast<float>(temperature), top_k, static_cast<float>(top_p), static_cast<float>(min_p)};
}

}  // namespace specmoe
