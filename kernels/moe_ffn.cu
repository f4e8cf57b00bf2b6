#include "kernels/activate.h"
#include "kernels/check.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/panel_product.h"

namespace specmoe::kernels::cuda {
namespace {

/// silu, and nothing else.
struct SiluUp {
  __device__ float hidden(std::int32_t, std::int32_t, std::int64_t, std::int64_t, float gate, float up) const {
    return gate / (1.0f + expf(-gate)) * up;
  }
};

struct GeneralUp {
  MoeUp how;
  /// Output n of `width` that expert e has for a pair.
  __device__ float hidden(std::int32_t e, std::int32_t pair, std::int64_t n, std::int64_t width, float gate,
                          float up) const {
    if (how.input_weight != nullptr) {
      gate *= how.input_weight[pair];
      up *= how.input_weight[pair];
    }
    if (how.bias != nullptr) {
      const float* bias = how.bias + e * 2 * width;
      gate += bias[n];
      up += bias[width + n];
    }
    return activate(how.activation, gate, up);
  }
};

/// A block per 16 hidden outputs and active expert: their gate panel and their up panel.
template <class Weight, int kGroups, class Up>
__global__ void __launch_bounds__(kProductThreads)
    moe_up_kernel(Rows<const float> x, DeviceMatrices gate_up, DevicePlan plan, Up how, Rows<float> hidden) {
  const auto a = static_cast<std::int32_t>(blockIdx.y);
  if (a >= *plan.active) return;
  float* cells = SharedArena().take<float>(kProductWarps * 2 * kGroups * kGroupCells);
  const std::byte* gate = gate_up.data[plan.experts[a]] + 2 * blockIdx.x * gate_up.shape.panel_bytes;
  const std::byte* const panels[2] = {gate, gate + gate_up.shape.panel_bytes};
  const int end = plan.offsets[a + 1];
  for (int first = plan.offsets[a]; first < end; first += kGroups * kGroupRows) {
    multiply_panels<Weight, 2, kGroups>(
        panels, static_cast<int>(x.cols),
        [&](int i) { return first + i < end ? x.row(plan.pairs[first + i] / plan.k) : nullptr; }, cells);
    for (int index = static_cast<int>(threadIdx.x); index < kGroups * kGroupCells; index += kProductThreads) {
      const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kPanelOutputs + product_output(index);
      const int i = first + product_row(index);
      if (i >= end || n >= hidden.cols) continue;
      const float g = product_sum<2, kGroups>(cells, 0, index);
      hidden.row(plan.pairs[i])[n] =
          how.hidden(plan.experts[a], plan.pairs[i], n, hidden.cols, g, product_sum<2, kGroups>(cells, 1, index));
    }
    __syncthreads();
  }
}

/// A block per 16 outputs and active expert. Of the blocks of one panel, the last to come adds up the ranks.
///
/// kGeneral  bias may be there and residual may be missing
template <class Weight, int kGroups, bool kGeneral>
__global__ void __launch_bounds__(kProductThreads)
    moe_down_kernel(Rows<const float> hidden, const std::int32_t* rows, DeviceMatrices down, DevicePlan plan,
                    const float* weight, const float* bias, Rows<const float> residual, Rows<float> scratch,
                    unsigned* counters, Rows<float> out) {
  const auto a = static_cast<std::int32_t>(blockIdx.y);
  const int active = *plan.active;
  if (a >= active) return;
  SharedArena arena;
  float* cells = arena.take<float>(kProductWarps * kGroups * kGroupCells);
  unsigned* ticket = arena.take<unsigned>(1);
  const std::byte* const panels[1] = {down.data[plan.experts[a]] + blockIdx.x * down.shape.panel_bytes};
  const std::int64_t first_output = static_cast<std::int64_t>(blockIdx.x) * kPanelOutputs;
  const int end = plan.offsets[a + 1];
  for (int first = plan.offsets[a]; first < end; first += kGroups * kGroupRows) {
    multiply_panels<Weight, 1, kGroups>(
        panels, static_cast<int>(hidden.cols),
        [&](int i) { return first + i < end ? hidden.row(plan.pairs[first + i]) : nullptr; }, cells);
    for (int index = static_cast<int>(threadIdx.x); index < kGroups * kGroupCells; index += kProductThreads) {
      const std::int64_t n = first_output + product_output(index);
      const int i = first + product_row(index);
      if (i >= end || n >= out.cols) continue;
      float sum = product_sum<1, kGroups>(cells, 0, index);
      if (kGeneral && bias != nullptr) sum += bias[plan.experts[a] * out.cols + n];
      scratch.row(plan.pairs[i])[n] = sum;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *ticket = take_ticket(counters + blockIdx.x);
  __syncthreads();
  if (*ticket + 1 < static_cast<unsigned>(active)) return;
  if (threadIdx.x == 0) counters[blockIdx.x] = 0;
  for (int index = static_cast<int>(threadIdx.x); index < *rows * kPanelOutputs; index += kProductThreads) {
    const int t = index / kPanelOutputs;
    const std::int64_t n = first_output + index % kPanelOutputs;
    if (n >= out.cols) continue;
    float sum = kGeneral && residual.data == nullptr ? 0.0f : residual.row(t)[n];
    for (int rank = 0; rank < plan.k; ++rank) {
      const int pair = t * plan.k + rank;
      sum = fmaf(weight[pair], scratch.row(pair)[n], sum);
    }
    out.row(t)[n] = sum;
  }
}

/// Every active expert has at most as many pairs as there are rows.
dim3 grid_of(std::int64_t outputs, const DeviceMatrices& experts, const DevicePlan& plan, RowCount rows) {
  const std::int64_t most_active = std::min<std::int64_t>(experts.experts, std::int64_t{rows.most} * plan.k);
  return {static_cast<unsigned>((outputs + kPanelOutputs - 1) / kPanelOutputs), static_cast<unsigned>(most_active)};
}

}  // namespace

void moe_up(Rows<const float> x, RowCount rows, const DeviceMatrices& gate_up, const DevicePlan& plan, const MoeUp& how,
            Rows<float> hidden, Stream& stream) {
  if (rows.most == 0) return;
  SPECMOE_CHECK(x.stride % 2 == 0, "moe_up on cuda: expected rows an even number of floats apart, got ", x.stride);
  const dim3 grid = grid_of(hidden.cols, gate_up, plan, rows);
  const bool plain =
      how.activation.kind == Activation::Kind::kSilu && how.input_weight == nullptr && how.bias == nullptr;
  choose_product(gate_up.shape.dtype, rows.most, [&](auto type, auto groups) {
    using Weight = decltype(type);
    constexpr std::size_t kBytes = product_bytes<2, groups>();
    if (plain) {
      launch(moe_up_kernel<Weight, groups, SiluUp>, grid, kProductThreads, kBytes, stream, x, gate_up, plan, SiluUp{},
             hidden);
    } else {
      launch(moe_up_kernel<Weight, groups, GeneralUp>, grid, kProductThreads, kBytes, stream, x, gate_up, plan,
             GeneralUp{how}, hidden);
    }
  });
}

void moe_down(Rows<const float> hidden, RowCount rows, const DeviceMatrices& down, const DevicePlan& plan,
              const float* weight, const float* bias, Rows<const float> residual, Rows<float> scratch,
              unsigned* counters, Rows<float> out, Stream& stream) {
  if (rows.most == 0) return;
  SPECMOE_CHECK(hidden.stride % 2 == 0, "moe_down on cuda: expected rows an even number of floats apart, got ",
                hidden.stride);
  choose_product(down.shape.dtype, rows.most, [&](auto type, auto groups) {
    const auto run = [&](auto kernel) {
      launch(kernel, grid_of(out.cols, down, plan, rows), kProductThreads,
             product_bytes<1, groups>() + arena_bytes<unsigned>(1), stream, hidden, rows.actual, down, plan, weight,
             bias, residual, scratch, counters, out);
    };
    if (bias == nullptr && residual.data != nullptr) {
      run(moe_down_kernel<decltype(type), groups, false>);
    } else {
      run(moe_down_kernel<decltype(type), groups, true>);
    }
  });
}

}  // namespace specmoe::kernels::cuda
