#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

void moe_router_simd(Rows<const float> logits, std::int64_t k, bool renormalise, std::int32_t* expert, float* weight) {
  for (std::int64_t t = 0; t < logits.rows; ++t, expert += k, weight += k) {
    const float* row = logits.row(t);
    choose_experts(row, logits.cols, k, expert);
    const float largest = row[expert[0]];
    float total = 0;
    for_each_vector(0, logits.cols, [&](std::int64_t e, auto part) {
      total += part.sum(exponential(sub(part.load(row + e), broadcast(largest))));
    });
    for_each_vector(0, k, [&](std::int64_t first, auto part) {
      float chosen[kWidth] = {};
      for (std::int64_t r = first; r < std::min(k, first + kWidth); ++r) chosen[r - first] = row[expert[r]];
      part.store(weight + first, div(exponential(sub(load(chosen), broadcast(largest))), broadcast(total)));
    });
    if (renormalise) normalise(weight, k);
  }
}

SPECMOE_KERNEL(moe_router, kBackend, moe_router_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
