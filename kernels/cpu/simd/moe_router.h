#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

void moe_router_simd(Rows<float> logits, const Routing& routing, const float* choice_bias, std::int32_t* expert,
                     float* weight) {
  const std::int64_t k = routing.experts_per_token;
  for (std::int64_t t = 0; t < logits.rows; ++t, expert += k, weight += k) {
    float* row = logits.row(t);
    if (!is_plain_softmax(routing, choice_bias)) {
      route_row(row, logits.cols, routing, choice_bias, expert, weight);
      continue;
    }
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
    finish_weights(routing, weight);
  }
}

SPECMOE_KERNEL(moe_router, kBackend, moe_router_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
