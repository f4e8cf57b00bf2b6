#pragma once

#include <vector>

#include "core/nn/model_spec.h"

namespace specmoe::nn {

/// Angle per position of each rotated pair, float32 as transformers computes it. [rotary_dim / 2]
std::vector<float> rope_frequencies(const RopeSpec& spec);

/// Cosines and sines by position, grown on demand.
class RopeTable {
 public:
  explicit RopeTable(const RopeSpec& spec);

  const RopeSpec& spec() const { return spec_; }
  /// Makes rows for positions [0, positions). Not while a pass runs.
  void reserve(int positions);
  /// [positions, rotary_dim]: for a position, half cosines then half sines.
  const float* data() const { return rows_.data(); }
  int half() const { return static_cast<int>(frequencies_.size()); }

 private:
  RopeSpec spec_;
  std::vector<float> frequencies_;
  std::vector<float> rows_;
};

}  // namespace specmoe::nn
