#pragma once

#include <math.h>

#include <cstdint>

#include "kernels/check.h"
#include "kernels/host_device.h"
#include "kernels/moe_router.h"

/// What decides in a router, one piece of code for the CPU and for devices. Not for files that are compiled for one
/// instruction set: inline functions of theirs could be taken for everyone's.
namespace specmoe::kernels {

inline constexpr int kMostGroups = 64;

/// Throws Error when experts cannot be cut as the routing says.
inline void check_groups(const Routing& routing, std::int64_t experts) {
  if (routing.groups == 1) return;
  SPECMOE_CHECK(routing.groups <= kMostGroups && experts % routing.groups == 0 && experts / routing.groups >= 2,
                "router: ", experts, " experts cannot be cut into ", routing.groups,
                " equal groups of 2 or more, at most ", kMostGroups);
}

/// chosen[0, k) = the k largest by falling score, the lower id first among equal ones. An insertion sort of the best so
/// far: a later equal one stays behind, and so does whatever follows a NaN.
template <class Score>
SPECMOE_HD void choose_best(const Score& score, std::int64_t experts, std::int64_t k, std::int32_t* chosen) {
  std::int64_t count = 0;
  for (std::int32_t e = 0; e < experts; ++e) {
    if (count == k && !(score(e) > score(chosen[k - 1]))) continue;
    std::int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && score(e) > score(chosen[at - 1]); --at) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
}

/// What a group of `size` experts from `first` on is worth.
template <class Score>
SPECMOE_HD float group_score(const Score& score, std::int32_t first, std::int64_t size, Routing::GroupScore kind) {
  const auto member = [&](std::int32_t i) { return score(first + i); };
  std::int32_t best[2];
  choose_best(member, size, 2, best);
  return kind == Routing::GroupScore::kSumOfTopTwo ? member(best[0]) + member(best[1]) : member(best[0]);
}

/// One bit per group whose experts can be chosen.
SPECMOE_HD inline std::uint64_t kept_groups(const float* group_scores, int groups, int kept_count) {
  std::int32_t kept[kMostGroups];
  choose_best([=](std::int32_t g) { return group_scores[g]; }, groups, kept_count, kept);
  std::uint64_t bits = 0;
  for (int i = 0; i < kept_count; ++i) bits |= std::uint64_t{1} << kept[i];
  return bits;
}

/// kSparsemixer: whether an expert of this logit takes part in the round of the best one.
SPECMOE_HD inline bool takes_part(float best, float logit, float jitter) {
  const float magnitude = fabsf(logit);
  const float distance = (best - logit) / (magnitude < best ? best : magnitude);
  return !(distance > 2 * jitter);
}

SPECMOE_HD inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// In place, of few numbers.
SPECMOE_HD inline void softmax(float* logits, std::int64_t count) {
  float largest = logits[0];
  for (std::int64_t e = 1; e < count; ++e) largest = largest < logits[e] ? logits[e] : largest;
  float total = 0;
  for (std::int64_t e = 0; e < count; ++e) total += logits[e] = expf(logits[e] - largest);
  for (std::int64_t e = 0; e < count; ++e) logits[e] /= total;
}

/// Divides the weights of the chosen by their sum if asked to, then scales.
SPECMOE_HD inline void share_out(const Routing& routing, float* weight) {
  const int k = routing.experts_per_token;
  if (routing.renormalise && routing.score != Routing::Score::kSoftmaxOfChosen) {
    float total = 0;
    for (int rank = 0; rank < k; ++rank) total += weight[rank];
    for (int rank = 0; rank < k; ++rank) weight[rank] /= total + routing.epsilon;
  }
  for (int rank = 0; rank < k; ++rank) weight[rank] *= routing.scale;
}

}  // namespace specmoe::kernels
