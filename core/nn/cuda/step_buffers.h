#pragma once

#include <vector>

#include "core/nn/cuda/device_model.h"

namespace specmoe::nn::cuda {

/// Rows of floats on the device, a whole number of 16 bytes apart.
struct RowBuffer {
  RowBuffer() = default;
  RowBuffer(std::int64_t rows, std::int64_t cols, int device)
      : stride((cols + 3) / 4 * 4), memory(static_cast<std::size_t>(rows * stride), device) {}
  kernels::Rows<float> view(std::int64_t rows, std::int64_t cols) const { return {memory.data(), rows, cols, stride}; }

  std::int64_t stride = 0;
  kernels::cuda::DeviceArray<float> memory;
};

/// Columns [first, first + cols) of all rows.
inline kernels::Rows<float> columns(kernels::Rows<float> x, std::int64_t first, std::int64_t cols) {
  return {x.data + first, x.rows, cols, x.stride};
}

/// Queues a copy between host and device, in one piece where rows follow one another in both.
void copy_rows(kernels::Rows<const float> from, kernels::Rows<float> to, kernels::cuda::Stream& stream);

/// A plan's memory; `active` lies elsewhere.
struct PlanBuffer {
  PlanBuffer() = default;
  PlanBuffer(std::int64_t experts, std::int64_t pairs, int device);
  kernels::cuda::DevicePlan view(int k, std::int32_t* active) const {
    return {k, active, experts.data(), offsets.data(), pairs.data()};
  }

  kernels::cuda::DeviceArray<std::int32_t> experts, offsets, pairs;
};

/// What passes of a model write, at fixed addresses. Parts that the model does not have take no memory.
struct StepBuffers {
  /// rows    most of a pass
  /// chunks  of positions, as in attention_scratch()
  /// taps    most boundaries of a pass
  StepBuffers(const DeviceModel& model, int rows, int chunks, int taps, kernels::cuda::Stream& stream);

  RowBuffer x;       // [T, hidden] the residual stream
  RowBuffer normed;  // [T, hidden]
  RowBuffer branch;  // [T, hidden] of a sandwich
  RowBuffer qkv;
  RowBuffer query_latent, kv_latent;  // [T, query_rank], [T, kv_rank] normed
  RowBuffer query, kv;                // [T, heads * head_dim], [T, heads * (nope_dim + value_dim)] from low rank
  RowBuffer attended;
  RowBuffer router_logits, shared_gate;     // [T, E], [T, 1]
  RowBuffer hidden, shared_hidden;          // [T * k, width], [T, shared width]
  RowBuffer down;                           // [T * k, hidden]
  RowBuffer wanted, wanted_normed, logits;  // of the rows that logits are wanted of
  RowBuffer tapped;                         // [T, taps, hidden], a row for each
  // Of a draft head.
  RowBuffer features;      // [T, feature_cols()] as they were uploaded
  RowBuffer fusion_input;  // [T, inputs of fc]
  RowBuffer wide;          // [T, 2 * hidden] what attention reads: normed embeddings, then the normed stream
  RowBuffer draft_logits;  // [T, draft vocabulary]
  kernels::cuda::DeviceArray<std::int32_t> handed_on;              // [T] as DevicePass has it
  kernels::cuda::DeviceArray<float> expert_weight, shared_weight;  // [T * k], [T]
  kernels::cuda::DeviceArray<float> product_scales;  // [T * k] all the same, for experts with scaled inputs
  kernels::cuda::DeviceArray<float> attention;       // scratch
  PlanBuffer plan, shared_plan;
  kernels::cuda::DeviceArray<std::int32_t> active;         // [layers] distinct experts
  kernels::cuda::DeviceArray<std::int32_t> shared_active;  // [1]
  kernels::cuda::DeviceArray<std::int32_t> experts;        // [layers][T, k]
  std::vector<std::size_t> first_expert;                   // where a layer's begin
  kernels::cuda::DeviceArray<std::int32_t> argmax;         // [T]
  kernels::cuda::DeviceArray<unsigned> attention_counters, down_counters;

 private:
  void make_rows(const DeviceModel& model, int rows, int taps, int device);
  void make_plans(const DeviceModel& model, int rows, kernels::cuda::Stream& stream);
};

}  // namespace specmoe::nn::cuda
