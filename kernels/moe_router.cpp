#include "kernels/moe_router.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/cpu/router_parts.h"
#include "kernels/router_rule.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<float>, const Routing&, const float*, std::int32_t*, float*)> moe_router("moe_router");

namespace {

/// One bit per group whose experts can be chosen.
template <class Score>
std::uint64_t allowed_groups(const Score& score, std::int64_t experts, const Routing& routing) {
  if (routing.groups == 1) return 1;
  check_groups(routing, experts);
  const std::int64_t size = experts / routing.groups;
  float scores[kMostGroups];
  for (std::int32_t g = 0; g < routing.groups; ++g) {
    scores[g] = group_score(score, static_cast<std::int32_t>(g * size), size, routing.group_score);
  }
  return kept_groups(scores, routing.groups, routing.kept_groups);
}

/// Two rounds: the best expert, weighted by a softmax over those that come close to it, without the one chosen before.
void sparsemix(const float* logits, std::int64_t experts, float jitter, std::int32_t* chosen, float* weight) {
  choose_experts(logits, experts, 2, chosen);
  for (int round = 0; round < 2; ++round) {
    const float best = logits[chosen[round]];
    float total = 0;
    for (std::int32_t e = 0; e < experts; ++e) {
      if (!takes_part(best, logits[e], jitter) || (round == 1 && e == chosen[0])) continue;
      total += std::exp(logits[e] - best);
    }
    weight[round] = 1.0f / total;
  }
}

}  // namespace

void choose_experts(const float* logits, std::int64_t experts, std::int64_t k, std::int32_t* chosen) {
  choose_best([logits](std::int32_t e) { return logits[e]; }, experts, k, chosen);
}

void finish_weights(const Routing& routing, float* weight) { share_out(routing, weight); }

void route_row(float* logits, std::int64_t experts, const Routing& routing, const float* choice_bias,
               std::int32_t* chosen, float* weight) {
  using Score = Routing::Score;
  const int k = routing.experts_per_token;
  if (routing.score == Score::kSparsemixer) {
    sparsemix(logits, experts, routing.jitter, chosen, weight);
    for (int rank = 0; rank < k; ++rank) weight[rank] *= routing.scale;
    return;
  }
  // Where scores rise with logits, experts are chosen by logit: scores of distant logits are rounded to equal ones.
  const bool by_logit = routing.groups == 1 && choice_bias == nullptr;
  if (by_logit) choose_experts(logits, experts, k, chosen);
  if (routing.score == Score::kSoftmax) softmax(logits, experts);
  if (routing.score == Score::kSigmoid) std::transform(logits, logits + experts, logits, sigmoid);
  if (!by_logit) {
    const auto score = [&](std::int32_t e) { return logits[e] + (choice_bias == nullptr ? 0.0f : choice_bias[e]); };
    const std::uint64_t kept = allowed_groups(score, experts, routing);
    const std::int64_t size = experts / routing.groups;
    const auto allowed = [&](std::int32_t e) { return (kept >> (e / size) & 1) != 0 ? score(e) : -INFINITY; };
    choose_best(allowed, experts, k, chosen);
  }
  for (int rank = 0; rank < k; ++rank) weight[rank] = logits[chosen[rank]];
  if (routing.score == Score::kSoftmaxOfChosen) softmax(weight, k);
  finish_weights(routing, weight);
}

namespace {

void moe_router_scalar(Rows<float> logits, const Routing& routing, const float* choice_bias, std::int32_t* expert,
                       float* weight) {
  const int k = routing.experts_per_token;
  for (std::int64_t t = 0; t < logits.rows; ++t, expert += k, weight += k) {
    float* row = logits.row(t);
    if (!is_plain_softmax(routing, choice_bias)) {
      route_row(row, logits.cols, routing, choice_bias, expert, weight);
      continue;
    }
    choose_experts(row, logits.cols, k, expert);
    const float largest = row[expert[0]];
    float total = 0;
    for (std::int64_t e = 0; e < logits.cols; ++e) total += std::exp(row[e] - largest);
    for (std::int64_t rank = 0; rank < k; ++rank) weight[rank] = std::exp(row[expert[rank]] - largest) / total;
    finish_weights(routing, weight);
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
