#pragma once

#include "kernels/cuda/device_order.h"
#include "kernels/cuda/ptx.h"
#include "kernels/packed_matrix.h"

/// The one way a weight is multiplied on a device. A block of kProductWarps warps takes panels of 16 outputs and up to
/// 8 * kGroups rows of x. The warps share the panel's inputs, tile by tile in turn; each tile is 512 bytes that a warp
/// loads as it lies in memory, 16 per lane, several tiles ahead of their use. The warps' sums are added in one order.
///
/// bfloat16 weights are multiplied by tensor cores. x stays float32: it is cut into three bfloat16 that add up to it
/// exactly, so products are exact and only sums are rounded. A row's bits depend on nothing but its own values.
namespace specmoe::kernels::cuda {

inline constexpr int kProductWarps = 8;
inline constexpr int kProductThreads = kProductWarps * kWarp;
inline constexpr int kPanelOutputs = 16;
inline constexpr int kGroupRows = 8;  // columns of one mma
inline constexpr int kGroupCells = kPanelOutputs * kGroupRows;

struct Bfloat16Weight {
  static constexpr int kTileInputs = 16;
};
struct Float32Weight {
  static constexpr int kTileInputs = 8;
};

/// Shared memory of a block.
template <int kPanels, int kGroups>
constexpr std::size_t product_bytes() {
  return arena_bytes<float>(kProductWarps * kPanels * kGroups * kGroupCells);
}

/// Two neighbouring inputs, zeros past the end. `row` may be null.
__device__ inline float2 two_inputs(const float* row, int k, int inputs) {
  if (row == nullptr || k >= inputs) return {0.0f, 0.0f};
  if (k + 1 < inputs) return *reinterpret_cast<const float2*>(row + k);
  return {row[k], 0.0f};
}

/// Three bfloat16 fragments that add up to four float32 inputs.
struct SplitInputs {
  MmaB part[3];
};

__device__ inline SplitInputs split_inputs(float2 first, float2 second) {
  SplitInputs split;
  for (int i = 0; i < 3; ++i) {
    const Bf16x2 a = to_bf16x2(first.x, first.y);
    const Bf16x2 b = to_bf16x2(second.x, second.y);
    split.part[i] = {{a, b}};
    first = {first.x - low_float(a), first.y - high_float(a)};
    second = {second.x - low_float(b), second.y - high_float(b)};
  }
  return split;
}

/// This warp's share of the sums, in registers.
template <class Weight, int kPanels, int kGroups>
struct WarpSums;

template <int kPanels, int kGroups>
struct WarpSums<Bfloat16Weight, kPanels, kGroups> {
  MmaC sums[kPanels][kGroups] = {};
  const float* rows[kGroups];  // the row of x that this lane feeds to each group

  template <class RowOf>
  __device__ void begin(const RowOf& row_of) {
    for (int group = 0; group < kGroups; ++group) rows[group] = row_of(group * kGroupRows + lane_index() / 4);
  }
  __device__ void multiply(const uint4 (&tile)[kPanels], int first_input, int inputs) {
    const int k = first_input + 2 * (lane_index() % 4);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const SplitInputs x = split_inputs(two_inputs(rows[group], k, inputs), two_inputs(rows[group], k + 8, inputs));
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) {
#pragma unroll
        for (int part = 2; part >= 0; --part) mma_bf16(sums[panel][group], tile[panel], x.part[part]);
      }
    }
  }
  __device__ void store(float* cells) const {
    const int output = lane_index() / 4;
    const int row = 2 * (lane_index() % 4);
    for (int panel = 0; panel < kPanels; ++panel) {
      for (int group = 0; group < kGroups; ++group) {
        float* to = cells + (panel * kGroups + group) * kGroupCells;
        for (int i = 0; i < 4; ++i) to[(output + i / 2 * 8) * kGroupRows + row + i % 2] = sums[panel][group].c[i];
      }
    }
  }
};

/// A lane has four inputs of one output: output lane % 16, inputs 4 * (lane / 16) and on.
template <int kPanels, int kGroups>
struct WarpSums<Float32Weight, kPanels, kGroups> {
  static constexpr int kRows = kGroups * kGroupRows;
  float sums[kPanels][kRows] = {};
  const float* rows[kRows];

  template <class RowOf>
  __device__ void begin(const RowOf& row_of) {
    for (int row = 0; row < kRows; ++row) rows[row] = row_of(row);
  }
  __device__ void multiply(const uint4 (&tile)[kPanels], int first_input, int inputs) {
    const int k = first_input + 4 * (lane_index() / kPanelOutputs);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float2 low = two_inputs(rows[row], k, inputs);
      const float2 high = two_inputs(rows[row], k + 2, inputs);
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) {
        float& sum = sums[panel][row];
        sum = fmaf(low.x, __uint_as_float(tile[panel].x), sum);
        sum = fmaf(low.y, __uint_as_float(tile[panel].y), sum);
        sum = fmaf(high.x, __uint_as_float(tile[panel].z), sum);
        sum = fmaf(high.y, __uint_as_float(tile[panel].w), sum);
      }
    }
  }
  __device__ void store(float* cells) const {
    const int output = lane_index() % kPanelOutputs;
    for (int panel = 0; panel < kPanels; ++panel) {
      for (int row = 0; row < kRows; ++row) {
        const float other = __shfl_xor_sync(kAllLanes, sums[panel][row], kPanelOutputs);
        if (lane_index() >= kPanelOutputs) continue;
        const int group = panel * kGroups + row / kGroupRows;
        cells[group * kGroupCells + output * kGroupRows + row % kGroupRows] = sums[panel][row] + other;
      }
    }
  }
};

/// Multiplies; afterwards product_sum() gives the results. Ends with a barrier; so must what reads the sums, before the
/// block multiplies again.
///
/// panels  where each panel's tiles begin
/// row_of  row_of(i), i < 8 * kGroups: the i-th row of x, or null
template <class Weight, int kPanels, int kGroups, class RowOf>
__device__ void multiply_panels(const std::byte* const (&panels)[kPanels], int inputs, const RowOf& row_of,
                                float* cells) {
  constexpr int kAhead = 8 / kPanels;
  WarpSums<Weight, kPanels, kGroups> warp;
  warp.begin(row_of);
  const int tiles = (inputs + Weight::kTileInputs - 1) / Weight::kTileInputs;
  for (int first = warp_index(); first < tiles; first += kAhead * kProductWarps) {
    uint4 ahead[kAhead][kPanels];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int tile = first + i * kProductWarps;
      if (tile >= tiles) break;
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) {
        ahead[i][panel] = load_streaming(panels[panel] + static_cast<std::int64_t>(tile) * kTileBytes +
                                         lane_index() * static_cast<int>(sizeof(uint4)));
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int tile = first + i * kProductWarps;
      if (tile >= tiles) break;
      warp.multiply(ahead[i], tile * Weight::kTileInputs, inputs);
    }
  }
  warp.store(cells + warp_index() * kPanels * kGroups * kGroupCells);
  __syncthreads();
}

/// Cell `index` of a panel's product: output index % 128 / 8, row index / 128 * 8 + index % 8.
template <int kPanels, int kGroups>
__device__ float product_sum(const float* cells, int panel, int index) {
  constexpr int kStride = kPanels * kGroups * kGroupCells;
  const float* at = cells + panel * kGroups * kGroupCells + index;
  float sum = at[0];
  for (int warp = 1; warp < kProductWarps; ++warp) sum += at[warp * kStride];
  return sum;
}

__device__ inline int product_output(int index) { return index % kGroupCells / kGroupRows; }
__device__ inline int product_row(int index) { return index / kGroupCells * kGroupRows + index % kGroupRows; }

/// Calls run(weight, groups) with the weight's type and a compile-time number of groups for `rows` rows. float32 lanes
/// hold a sum per row, so more groups than one would not fit their registers.
template <class Run>
void choose_product(DType dtype, int rows, const Run& run) {
  if (dtype == DType::kFloat32) {
    run(Float32Weight{}, std::integral_constant<int, 1>{});
  } else if (rows <= kGroupRows) {
    run(Bfloat16Weight{}, std::integral_constant<int, 1>{});
  } else if (rows <= 2 * kGroupRows) {
    run(Bfloat16Weight{}, std::integral_constant<int, 2>{});
  } else {
    run(Bfloat16Weight{}, std::integral_constant<int, 4>{});
  }
}

}  // namespace specmoe::kernels::cuda
