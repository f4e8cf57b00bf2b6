#pragma once

#include <cstdint>

#include "kernels/sampling.h"

namespace specmoe {

/// How one request samples. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 cut nothing.
struct SamplingParams {
  double temperature = 0.0;
  int top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;  // least share of the likeliest token's probability
  std::uint64_t seed = 0;
  /// Part of every uniform's address beside the seed: tells apart requests that share a seed, whatever their batch.
  std::uint64_t sequence = 0;

  bool greedy() const { return temperature == 0.0; }
  bool cuts() const { return top_k > 0 || top_p < 1.0 || min_p > 0.0; }
  kernels::SamplingRule rule() const;
  /// Throws Error for values out of range.
  void validate() const;
};

}  // namespace specmoe
