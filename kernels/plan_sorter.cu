#include "kernels/cuda/plan_sorter.h"

#include <bit>

#include "kernels/check.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sort_scan.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int pair_of_thread() { return static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); }

/// Pairs of rows that the pass does not have come last.
__global__ void __launch_bounds__(kThreads)
    pair_key_kernel(const std::int32_t* expert, const std::int32_t* rows, int pairs, int k, int experts,
                    std::int32_t* keys, std::int32_t* values) {
  const int p = pair_of_thread();
  if (p >= pairs) return;
  keys[p] = p < *rows * k ? expert[p] : experts;
  values[p] = p;
}

__device__ bool begins_expert(const std::int32_t* keys, int p) { return p == 0 || keys[p] != keys[p - 1]; }

/// Their running sums number the active experts, from 1.
__global__ void __launch_bounds__(kThreads)
    expert_begin_kernel(const std::int32_t* keys, int pairs, std::int32_t* begins) {
  const int p = pair_of_thread();
  if (p < pairs) begins[p] = begins_expert(keys, p) ? 1 : 0;
}

__global__ void __launch_bounds__(kThreads)
    sorted_plan_kernel(const std::int32_t* keys, const std::int32_t* ranks, const std::int32_t* rows, DevicePlan plan) {
  const int p = pair_of_thread();
  const int count = *rows * plan.k;
  if (p >= count) {
    if (count == 0 && p == 0) *plan.active = plan.offsets[0] = 0;
    return;
  }
  const int rank = ranks[p];
  if (begins_expert(keys, p)) {
    plan.experts[rank - 1] = keys[p];
    plan.offsets[rank - 1] = p;
  }
  if (p + 1 < count) return;
  plan.offsets[rank] = count;
  *plan.active = rank;
}

}  // namespace

PlanSorter::PlanSorter(int pairs, Stream& stream)
    : pairs_(pairs),
      scratch_bytes_(sort_scan_scratch(pairs, stream)),
      scratch_(scratch_bytes_, stream.device()),
      keys_(static_cast<std::size_t>(pairs), stream.device()),
      values_(static_cast<std::size_t>(pairs), stream.device()),
      sorted_keys_(static_cast<std::size_t>(pairs), stream.device()),
      ranks_(static_cast<std::size_t>(pairs), stream.device()) {}

void PlanSorter::build(const std::int32_t* expert, RowCount rows, int experts, const DevicePlan& plan,
                       Stream& stream) const {
  const int pairs = rows.most * plan.k;
  SPECMOE_CHECK(pairs <= pairs_, "plan_sorter: expected at most ", pairs_, " pairs, got ", pairs);
  const auto blocks = static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
  const int bits = std::bit_width(static_cast<unsigned>(experts));
  launch(pair_key_kernel, blocks, kThreads, 0, stream, expert, rows.actual, pairs, plan.k, experts, keys_.data(),
         values_.data());
  sort_pairs(keys_.data(), values_.data(), pairs, bits, sorted_keys_.data(), plan.pairs, scratch_.data(),
             scratch_bytes_, stream);
  launch(expert_begin_kernel, blocks, kThreads, 0, stream, sorted_keys_.data(), pairs, ranks_.data());
  running_sums(ranks_.data(), pairs, ranks_.data(), scratch_.data(), scratch_bytes_, stream);
  launch(sorted_plan_kernel, blocks, kThreads, 0, stream, sorted_keys_.data(), ranks_.data(), rows.actual, plan);
}

}  // namespace specmoe::kernels::cuda
