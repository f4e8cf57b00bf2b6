#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace specmoe {

/// What one pass over a block of floats tells.
struct FloatBlock {
  float sum = 0.0F;
  float most = 0.0F;
  bool has_sign = false;  // of some value: below zero, or -0
};

/// Reads values[0 .. count) once, count > 0; what the caller does not ask for costs nothing once inlined. The lanes are
/// GCC's vectors, not an array, so that they stay in registers; four of them hide the latency of an addition.
inline FloatBlock read_block(const float* values, int count) {
  using Floats __attribute__((vector_size(16))) = float;
  using Bits __attribute__((vector_size(16))) = std::int32_t;
  struct Lanes {
    Floats sum{};
    Floats most;
    Bits sign{};
    void add(const float* four) {
      Floats floats;
      Bits bits;
      std::memcpy(&floats, four, sizeof(floats));
      std::memcpy(&bits, four, sizeof(bits));
      sum += floats;
      most = most < floats ? floats : most;
      sign |= bits;
    }
  };
  Lanes a{.most = Floats{} + values[0]};
  Lanes b = a;
  Lanes c = a;
  Lanes d = a;
  int at = 0;
  for (; at + 16 <= count; at += 16) {
    a.add(values + at);
    b.add(values + at + 4);
    c.add(values + at + 8);
    d.add(values + at + 12);
  }
  const Floats sums = (a.sum + b.sum) + (c.sum + d.sum);
  const Bits signs = (a.sign | b.sign) | (c.sign | d.sign);
  const Floats ab = a.most < b.most ? b.most : a.most;
  const Floats cd = c.most < d.most ? d.most : c.most;
  FloatBlock block{.sum = (sums[0] + sums[1]) + (sums[2] + sums[3]),
                   .most = std::max({ab[0], ab[1], ab[2], ab[3], cd[0], cd[1], cd[2], cd[3]}),
                   .has_sign = ((signs[0] | signs[1]) | (signs[2] | signs[3])) < 0};
  for (; at < count; ++at) {
    block.sum += values[at];
    block.most = std::max(block.most, values[at]);
    block.has_sign |= values[at] < 0.0F;
  }
  return block;
}

}  // namespace specmoe
