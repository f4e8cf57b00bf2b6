#pragma once

#include <cstdint>

namespace specmoe {

/// How one request samples. temperature 0 is greedy; top_k 0 and top_p 1 cut nothing.
struct SamplingParams {
  double temperature = 0.0;
  int top_k = 0;
  double top_p = 1.0;
  std::uint64_t seed = 0;
  /// Part of every uniform's address beside the seed: tells apart requests that share a seed, whatever their batch.
  std::uint64_t sequence = 0;

  bool greedy() const { return temperature == 0.0; }
  /// Throws Error for values out of range.
  void validate() const;
};

}  // namespace specmoe
