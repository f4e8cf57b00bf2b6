#pragma once

#include <cstdint>

#include "kernels/sampling.h"

namespace specmoe {

/// How one request samples. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 cut nothing. Penalties change logits
/// before all else, by the text up to the token that is chosen: those of repetition over prompt and output, the others
/// over the output alone. A repetition_penalty of 1 and others of 0 change nothing.
struct SamplingParams {
  double temperature = 0.0;
  int top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;               // least share of the likeliest token's probability
  double repetition_penalty = 1.0;  // divides a logit above 0 and multiplies any other
  double presence_penalty = 0.0;    // is subtracted once
  double frequency_penalty = 0.0;   // is subtracted as often as the token occurs
  std::uint64_t seed = 0;
  /// Part of every uniform's address beside the seed: tells apart requests that share a seed, whatever their batch.
  std::uint64_t sequence = 0;

  bool greedy() const { return temperature == 0.0; }
  bool cuts() const { return top_k > 0 || top_p < 1.0 || min_p > 0.0; }
  bool penalises() const { return repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0; }
  kernels::SamplingRule rule() const;
  /// Throws Error for values out of range.
  void validate() const;
};

}  // namespace specmoe
