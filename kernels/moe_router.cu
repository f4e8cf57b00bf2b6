#include "kernels/check.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/plan_sorter.h"
#include "kernels/router_rule.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostPerLane = 32;  // bits of a word that say which of a lane's experts are taken
static_assert(kMostExperts <= kMostPerLane * kWarp);

struct Candidate {
  float logit;
  std::int32_t expert;
  /// The larger logit; of equal ones the lower expert.
  __device__ bool before(const Candidate& other) const {
    return logit > other.logit || (logit == other.logit && expert < other.expert);
  }
};

__device__ Candidate best_of_warp(Candidate best) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Candidate other = {__shfl_xor_sync(kAllLanes, best.logit, step),
                             __shfl_xor_sync(kAllLanes, best.expert, step)};
    if (other.before(best)) best = other;
  }
  return best;
}

/// NaN counts as the least, so that ids are valid whatever the logits are.
__device__ float ranked(float logit) { return logit == logit ? logit : -INFINITY; }

/// The best of a warp's experts by score(e), of those whose bit in `taken` (of this lane's experts) is not set.
template <class Score>
__device__ Candidate best_left(const Score& score, int experts, std::uint32_t taken) {
  Candidate best = {-INFINITY, experts};
  for (int e = lane_index(), i = 0; e < experts; e += kWarp, ++i) {
    const Candidate candidate = {ranked(score(e)), e};
    if ((taken >> i & 1u) == 0 && candidate.before(best)) best = candidate;
  }
  return best_of_warp(best);
}

__device__ std::uint32_t taken_by_lane(std::int32_t expert) {
  return expert % kWarp == lane_index() ? 1u << (expert / kWarp) : 0u;
}

/// One warp chooses one row's experts.
__device__ void route_row(const float* logits, int experts, int k, bool renormalise, std::int32_t* expert,
                          float* weight) {
  std::uint32_t taken = 0;
  float largest = 0.0f;
  float chosen_total = 0.0f;
  for (int rank = 0; rank < k; ++rank) {
    const Candidate best = best_left([logits](int e) { return logits[e]; }, experts, taken);
    taken |= taken_by_lane(best.expert);
    if (rank == 0) largest = logits[best.expert];
    const float share = expf(logits[best.expert] - largest);
    chosen_total += share;
    if (lane_index() == 0) {
      expert[rank] = best.expert;
      weight[rank] = share;
    }
  }
  float total = 0.0f;
  for (int e = lane_index(); e < experts; e += kWarp) total += expf(logits[e] - largest);
  total = warp_sum(total);
  if (renormalise) total = chosen_total;
  if (lane_index() == 0) {
    for (int rank = 0; rank < k; ++rank) weight[rank] /= total;
  }
}

/// Every other kind of routing, of one row by one warp.
class RuleRow {
 public:
  /// group_scores  [kMostGroups] the warp's own
  __device__ RuleRow(const Routing& routing, float* logits, int experts, const float* choice_bias, float* group_scores)
      : routing_(routing), logits_(logits), experts_(experts), bias_(choice_bias), group_scores_(group_scores) {}

  __device__ void route(std::int32_t* chosen, float* weight) {
    using Score = Routing::Score;
    if (routing_.score == Score::kSparsemixer) return sparsemix(chosen, weight);
    const int k = routing_.experts_per_token;
    const bool by_logit = routing_.groups == 1 && bias_ == nullptr;
    if (by_logit) choose([this](int e) { return logits_[e]; }, k, chosen);
    if (routing_.score == Score::kSoftmax) make_softmax();
    if (routing_.score == Score::kSigmoid) each([](float logit) { return sigmoid(logit); });
    if (!by_logit) choose_by_score(k, chosen);
    __syncwarp();
    if (lane_index() != 0) return;
    for (int rank = 0; rank < k; ++rank) weight[rank] = logits_[chosen[rank]];
    if (routing_.score == Score::kSoftmaxOfChosen) softmax(weight, k);
    share_out(routing_, weight);
  }

 private:
  template <class Change>
  __device__ void each(const Change& change) const {
    __syncwarp();
    for (int e = lane_index(); e < experts_; e += kWarp) logits_[e] = change(logits_[e]);
    __syncwarp();
  }
  template <class Score>
  __device__ void choose(const Score& score, int k, std::int32_t* chosen) const {
    std::uint32_t taken = 0;
    for (int rank = 0; rank < k; ++rank) {
      const Candidate best = best_left(score, experts_, taken);
      taken |= taken_by_lane(best.expert);
      if (lane_index() == 0) chosen[rank] = best.expert;
    }
  }
  __device__ void make_softmax() const {
    float largest = -INFINITY;
    for (int e = lane_index(); e < experts_; e += kWarp) largest = fmaxf(largest, logits_[e]);
    largest = warp_max(largest);
    each([largest](float logit) { return expf(logit - largest); });
    float total = 0.0f;
    for (int e = lane_index(); e < experts_; e += kWarp) total += logits_[e];
    total = warp_sum(total);
    each([total](float share) { return share / total; });
  }
  __device__ void choose_by_score(int k, std::int32_t* chosen) const {
    const auto score = [this](std::int32_t e) { return logits_[e] + (bias_ == nullptr ? 0.0f : bias_[e]); };
    const int size = experts_ / routing_.groups;
    std::uint64_t kept = 1;
    if (routing_.groups > 1) {
      for (int g = lane_index(); g < routing_.groups; g += kWarp) {
        group_scores_[g] = group_score(score, g * size, size, routing_.group_score);
      }
      __syncwarp();
      kept = kept_groups(group_scores_, routing_.groups, routing_.kept_groups);
    }
    choose([&](int e) { return (kept >> (e / size) & 1) != 0 ? score(e) : -INFINITY; }, k, chosen);
  }
  __device__ void sparsemix(std::int32_t* chosen, float* weight) const {
    choose([this](int e) { return logits_[e]; }, 2, chosen);
    __syncwarp();
    for (int round = 0; round < 2; ++round) {
      const float best = logits_[chosen[round]];
      float total = 0.0f;
      for (int e = lane_index(); e < experts_; e += kWarp) {
        if (!takes_part(best, logits_[e], routing_.jitter) || (round == 1 && e == chosen[0])) continue;
        total += expf(logits_[e] - best);
      }
      total = warp_sum(total);
      if (lane_index() == 0) weight[round] = 1.0f / total * routing_.scale;
    }
  }

  const Routing& routing_;
  float* logits_;
  int experts_;
  const float* bias_;
  float* group_scores_;
};

/// MoePlan::build by one block. `counts` [E] is shared memory.
__device__ void build_plan(const std::int32_t* expert, int pair_count, int experts, const DevicePlan& plan,
                           std::int32_t* counts) {
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    std::int32_t count = 0;
    for (int p = 0; p < pair_count; ++p) count += expert[p] == e ? 1 : 0;
    counts[e] = count;
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    std::int32_t active = 0;
    std::int32_t begin = 0;
    for (int before = 0; before < e; ++before) {
      active += counts[before] > 0 ? 1 : 0;
      begin += counts[before];
    }
    if (counts[e] > 0) {
      plan.experts[active] = e;
      plan.offsets[active] = begin;
      for (int p = 0, at = begin; p < pair_count; ++p) {
        if (expert[p] == e) plan.pairs[at++] = p;
      }
    }
    if (e + 1 == experts) {
      active += counts[e] > 0 ? 1 : 0;
      plan.offsets[active] = begin + counts[e];
      *plan.active = active;
    }
  }
}

/// A warp per row. One block makes the plan too; several leave it to a PlanSorter.
__global__ void __launch_bounds__(kThreads)
    route_kernel(Rows<const float> logits, const std::int32_t* rows, bool renormalise, std::int32_t* expert,
                 float* weight, DevicePlan plan) {
  const int experts = static_cast<int>(logits.cols);
  const int k = plan.k;
  constexpr int kWarps = kThreads / kWarp;
  for (int t = static_cast<int>(blockIdx.x) * kWarps + warp_index(); t < *rows; t += kWarps * gridDim.x) {
    route_row(logits.row(t), experts, k, renormalise, expert + t * k, weight + t * k);
  }
  if (gridDim.x > 1) return;
  __syncthreads();
  build_plan(expert, *rows * k, experts, plan, SharedArena().take<std::int32_t>(experts));
}

__global__ void __launch_bounds__(kThreads)
    route_by_rule_kernel(Rows<float> logits, const std::int32_t* rows, Routing routing, const float* choice_bias,
                         std::int32_t* expert, float* weight, DevicePlan plan) {
  const int experts = static_cast<int>(logits.cols);
  const int k = plan.k;
  SharedArena arena;
  std::int32_t* counts = arena.take<std::int32_t>(experts);
  float* group_scores = arena.take<float>(kThreads / kWarp * kMostGroups) + warp_index() * kMostGroups;
  constexpr int kWarps = kThreads / kWarp;
  for (int t = static_cast<int>(blockIdx.x) * kWarps + warp_index(); t < *rows; t += kWarps * gridDim.x) {
    RuleRow(routing, logits.row(t), experts, choice_bias, group_scores).route(expert + t * k, weight + t * k);
    __syncwarp();
  }
  if (gridDim.x > 1) return;
  __syncthreads();
  build_plan(expert, *rows * k, experts, plan, counts);
}

__global__ void __launch_bounds__(kThreads)
    route_to_one_kernel(const std::int32_t* rows, Rows<const float> gate, float scale, float* weight, DevicePlan plan) {
  for (int t = static_cast<int>(threadIdx.x); t < *rows; t += kThreads) {
    plan.pairs[t] = t;
    weight[t] = gate.data == nullptr ? scale : scale / (1.0f + expf(-*gate.row(t)));
  }
  if (threadIdx.x != 0) return;
  plan.experts[0] = 0;
  plan.offsets[0] = 0;
  plan.offsets[1] = *rows;
  *plan.active = *rows > 0 ? 1 : 0;
}

void check_experts(std::int64_t experts, std::int32_t k) {
  SPECMOE_CHECK(experts <= kMostExperts && k <= experts, "moe_router on cuda: expected k <= experts <= ", kMostExperts,
                ", got k = ", k, " of ", experts, " experts");
}

bool sorts(RowCount rows, const PlanSorter* sorter) { return sorter != nullptr && rows.most > PlanSorter::kFewRows; }

/// One makes the plan too; several leave it to the sorter.
unsigned blocks_for(RowCount rows, const PlanSorter* sorter) {
  constexpr int kWarps = kThreads / kWarp;
  return sorts(rows, sorter) ? static_cast<unsigned>((rows.most + kWarps - 1) / kWarps) : 1;
}

}  // namespace

void route(Rows<const float> logits, RowCount rows, bool renormalise, std::int32_t* expert, float* weight,
           const DevicePlan& plan, Stream& stream, const PlanSorter* sorter) {
  check_experts(logits.cols, plan.k);
  launch(route_kernel, blocks_for(rows, sorter), kThreads, arena_bytes<std::int32_t>(logits.cols), stream, logits,
         rows.actual, renormalise, expert, weight, plan);
  if (sorts(rows, sorter)) sorter->build(expert, rows, static_cast<int>(logits.cols), plan, stream);
}

void route_by_rule(Rows<float> logits, RowCount rows, const Routing& routing, const float* choice_bias,
                   std::int32_t* expert, float* weight, const DevicePlan& plan, Stream& stream,
                   const PlanSorter* sorter) {
  check_experts(logits.cols, plan.k);
  check_groups(routing, logits.cols);
  const std::size_t bytes = arena_bytes<std::int32_t>(logits.cols) + arena_bytes<float>(kThreads / kWarp * kMostGroups);
  launch(route_by_rule_kernel, blocks_for(rows, sorter), kThreads, bytes, stream, logits, rows.actual, routing,
         choice_bias, expert, weight, plan);
  if (sorts(rows, sorter)) sorter->build(expert, rows, static_cast<int>(logits.cols), plan, stream);
}

void route_to_one(RowCount rows, Rows<const float> gate, float scale, float* weight, const DevicePlan& plan,
                  Stream& stream) {
  launch(route_to_one_kernel, 1, kThreads, 0, stream, rows.actual, gate, scale, weight, plan);
}

}  // namespace specmoe::kernels::cuda
