#include "kernels/moe_router.h"

#include <cmath>

#include "kernels/cpu/router_parts.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, std::int64_t, bool, std::int32_t*, float*)> moe_router("moe_router");

void choose_experts(const float* logits, std::int64_t experts, std::int64_t k, std::int32_t* chosen) {
  // An insertion sort of the best so far; a later equal one stays behind, and so does whatever follows a NaN.
  std::int64_t count = 0;
  for (std::int32_t e = 0; e < experts; ++e) {
    if (count == k && !(logits[e] > logits[chosen[k - 1]])) continue;
    std::int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && logits[e] > logits[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
}

void normalise(float* weight, std::int64_t k) {
  float total = 0;
  for (std::int64_t rank = 0; rank < k; ++rank) total += weight[rank];
  for (std::int64_t rank = 0; rank < k; ++rank) weight[rank] /= total;
}

namespace {

void moe_router_scalar(Rows<const float> logits, std::int64_t k, bool renormalise, std::int32_t* expert,
                       float* weight) {
  for (std::int64_t t = 0; t < logits.rows; ++t, expert += k, weight += k) {
    const float* row = logits.row(t);
    choose_experts(row, logits.cols, k, expert);
    const float largest = row[expert[0]];
    float total = 0;
    for (std::int64_t e = 0; e < logits.cols; ++e) total += std::exp(row[e] - largest);
    for (std::int64_t rank = 0; rank < k; ++rank) weight[rank] = std::exp(row[expert[rank]] - largest) / total;
    if (renormalise) normalise(weight, k);
  }
}

SPECMOE_KERNEL(moe_router, Backend::kScalar, moe_router_scalar);

}  // namespace

void MoePlan::build(const std::int32_t* expert, std::int64_t rows, std::int64_t top_k, std::int64_t expert_count) {
  k = top_k;
  const std::int64_t pair_count = rows * k;
  // A counting sort; offsets first holds, for every expert, where its pairs begin.
  offsets.assign(static_cast<std::size_t>(expert_count) + 1, 0);
  for (std::int64_t p = 0; p < pair_count; ++p) ++offsets[static_cast<std::size_t>(expert[p]) + 1];
  for (std::size_t e = 0; e < static_cast<std::size_t>(expert_count); ++e) offsets[e + 1] += offsets[e];
  pairs.resize(static_cast<std::size_t>(pair_count));
  for (std::int64_t p = 0; p < pair_count; ++p) {
    pairs[static_cast<std::size_t>(offsets[static_cast<std::size_t>(expert[p])]++)] = static_cast<std::int32_t>(p);
  }
  // Each offset now is its expert's end, that is, the beginning of the next one: keep those of active experts.
  experts.clear();
  std::int32_t begin = 0;
  std::size_t active = 0;
  for (std::int32_t e = 0; e < expert_count; ++e) {
    const std::int32_t end = offsets[static_cast<std::size_t>(e)];
    if (end > begin) {
      experts.push_back(e);
      offsets[active++] = begin;
    }
    begin = end;
  }
  offsets[active] = begin;
  offsets.resize(active + 1);
}

}  // namespace specmoe::kernels
