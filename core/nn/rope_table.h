#pragma once

#include <array>
#include <vector>

#include "core/nn/model_spec.h"

namespace specmoe::nn {

/// Whether texts in a cache of `capacity` tokens turn by the long factors.
bool is_long(const RopeSpec& spec, int capacity);

/// Angle per position of each rotated pair, float32 as transformers computes it. [rotary_dim / 2]
std::vector<float> rope_frequencies(const RopeSpec& spec, bool long_context = false);

/// Cosines and sines by position, grown on demand.
class RopeTable {
 public:
  explicit RopeTable(const RopeSpec& spec) : spec_(spec) {}

  const RopeSpec& spec() const { return spec_; }
  /// Makes rows for positions [0, positions) of caches of `capacity` tokens. Not while a pass runs.
  void reserve(int positions, int capacity);
  /// [positions, rotary_dim]: for a position, half cosines then half sines.
  const float* data(int capacity) const { return rows_[is_long(spec_, capacity) ? 1 : 0].data(); }
  int half() const { return spec_.rotary_dim / 2; }

 private:
  RopeSpec spec_;
  std::array<std::vector<float>, 2> rows_;  // of short and of long contexts
};

}  // namespace specmoe::nn
