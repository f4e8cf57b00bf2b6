#include "kernels/check.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/plan_sorter.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostPerLane = 32;  // bits of a word that say which of a lane's experts are taken
constexpr std::int64_t kMostExperts = kMostPerLane * kWarp;

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

/// One warp chooses one row's experts.
__device__ void route_row(const float* logits, int experts, int k, bool renormalise, std::int32_t* expert,
                          float* weight) {
  std::uint32_t taken = 0;
  float largest = 0.0f;
  float chosen_total = 0.0f;
  for (int rank = 0; rank < k; ++rank) {
    Candidate best = {-INFINITY, experts};
    for (int e = lane_index(), i = 0; e < experts; e += kWarp, ++i) {
      const Candidate candidate = {ranked(logits[e]), e};
      if ((taken >> i & 1u) == 0 && candidate.before(best)) best = candidate;
    }
    best = best_of_warp(best);
    if (best.expert % kWarp == lane_index()) taken |= 1u << (best.expert / kWarp);
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
    route_to_one_kernel(const std::int32_t* rows, float* weight, DevicePlan plan) {
  for (int t = static_cast<int>(threadIdx.x); t < *rows; t += kThreads) {
    plan.pairs[t] = t;
    weight[t] = 1.0f;
  }
  if (threadIdx.x != 0) return;
  plan.experts[0] = 0;
  plan.offsets[0] = 0;
  plan.offsets[1] = *rows;
  *plan.active = *rows > 0 ? 1 : 0;
}

}  // namespace

void route(Rows<const float> logits, RowCount rows, bool renormalise, std::int32_t* expert, float* weight,
           const DevicePlan& plan, Stream& stream, const PlanSorter* sorter) {
  SPECMOE_CHECK(logits.cols <= kMostExperts && plan.k <= logits.cols,
                "moe_router on cuda: expected k <= experts <= ", kMostExperts, ", got k = ", plan.k, " of ",
                logits.cols, " experts");
  const bool sorts = sorter != nullptr && rows.most > PlanSorter::kFewRows;
  const unsigned blocks = sorts ? static_cast<unsigned>((rows.most + kThreads / kWarp - 1) / (kThreads / kWarp)) : 1;
  launch(route_kernel, blocks, kThreads, arena_bytes<std::int32_t>(logits.cols), stream, logits, rows.actual,
         renormalise, expert, weight, plan);
  if (sorts) sorter->build(expert, rows, static_cast<int>(logits.cols), plan, stream);
}

void route_to_one(RowCount rows, float* weight, const DevicePlan& plan, Stream& stream) {
  launch(route_to_one_kernel, 1, kThreads, 0, stream, rows.actual, weight, plan);
}

}  // namespace specmoe::kernels::cuda
