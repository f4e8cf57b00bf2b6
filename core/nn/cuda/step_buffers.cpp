#include "core/nn/cuda/step_buffers.h"

#include <algorithm>

namespace specmoe::nn::cuda {

using kernels::cuda::DeviceArray;

namespace {

/// The largest value of `of` over the layers.
template <class Of>
std::int64_t most(const DeviceModel& model, const Of& of) {
  std::int64_t largest = 0;
  for (const DeviceLayer& layer : model.layers) largest = std::max<std::int64_t>(largest, of(layer));
  return largest;
}

bool any_sandwich(const DeviceModel& model) {
  return most(model, [](const DeviceLayer& layer) { return layer.attention_out_norm.weight != nullptr ? 1 : 0; }) > 0;
}

}  // namespace

void copy_rows(kernels::Rows<const float> from, kernels::Rows<float> to, kernels::cuda::Stream& stream) {
  const auto row_bytes = static_cast<std::size_t>(from.cols) * sizeof(float);
  if (from.stride == from.cols && to.stride == to.cols) {
    return stream.copy(to.data, from.data, static_cast<std::size_t>(from.rows) * row_bytes);
  }
  for (std::int64_t t = 0; t < from.rows; ++t) stream.copy(to.row(t), from.row(t), row_bytes);
}

PlanBuffer::PlanBuffer(std::int64_t expert_count, std::int64_t pair_count, int device)
    : experts(static_cast<std::size_t>(expert_count), device),
      offsets(static_cast<std::size_t>(expert_count) + 1, device),
      pairs(static_cast<std::size_t>(pair_count), device) {}

StepBuffers::StepBuffers(const DeviceModel& model, int rows, int chunks, int taps, kernels::cuda::Stream& stream) {
  const int device = stream.device();
  make_rows(model, rows, taps, device);
  make_plans(model, rows, stream);
  const auto scratch = [&](const DeviceLayer& layer) {
    return kernels::cuda::attention_scratch(rows, layer.attention, chunks);
  };
  attention = DeviceArray<float>(static_cast<std::size_t>(most(model, scratch)), device);
  argmax = DeviceArray<std::int32_t>(static_cast<std::size_t>(rows), device);
  const std::int64_t kv_heads = most(model, [](const DeviceLayer& layer) { return layer.attention.kv_heads; });
  attention_counters = DeviceArray<unsigned>(static_cast<std::size_t>(rows * kv_heads), device);
  down_counters = DeviceArray<unsigned>(static_cast<std::size_t>((model.hidden + 15) / 16), device);
  stream.zero(attention_counters.data(), attention_counters.size() * sizeof(unsigned));
  stream.zero(down_counters.data(), down_counters.size() * sizeof(unsigned));
}

void StepBuffers::make_rows(const DeviceModel& model, int rows, int taps, int device) {
  // Of no columns: no memory.
  const auto buffer = [&](std::int64_t count, std::int64_t cols) {
    return cols > 0 ? RowBuffer(count, cols, device) : RowBuffer();
  };
  const auto widest = [&](std::int64_t count, const auto& of) { return buffer(count, most(model, of)); };
  const std::int64_t k = most(model, [](const DeviceLayer& layer) { return layer.ffn.experts_per_token(); });
  x = buffer(rows, model.hidden);
  normed = buffer(rows, model.hidden);
  branch = buffer(rows, any_sandwich(model) ? model.hidden : 0);
  qkv = widest(rows, [](const DeviceLayer& layer) { return layer.qkv.rows; });
  query_latent = widest(rows, [](const DeviceLayer& layer) { return layer.latent.query_rank; });
  kv_latent = widest(rows, [](const DeviceLayer& layer) { return layer.latent.kv_rank; });
  query = widest(rows, [](const DeviceLayer& layer) { return layer.latent.query_up.rows; });
  kv = widest(rows, [](const DeviceLayer& layer) { return layer.latent.kv_up.rows; });
  attended = widest(rows, [](const DeviceLayer& layer) { return layer.output.cols; });
  router_logits = widest(rows, [](const DeviceLayer& layer) { return layer.ffn.router.rows; });
  shared_gate = widest(rows, [](const DeviceLayer& layer) { return layer.ffn.shared.gate.rows; });
  hidden = widest(rows * k, [](const DeviceLayer& layer) { return layer.ffn.width; });
  shared_hidden = widest(rows, [](const DeviceLayer& layer) { return layer.ffn.shared.width; });
  down = buffer(rows * k, model.hidden);
  wanted = buffer(rows, model.hidden);
  wanted_normed = buffer(rows, model.hidden);
  logits = buffer(rows, model.vocab);
  tapped = buffer(std::int64_t{rows} * taps, model.hidden);
  if (!model.fusion) return;
  features = buffer(rows, model.feature_cols());
  fusion_input = buffer(rows, model.proposes_blocks() ? 0 : model.fusion->fc.cols);
  wide = buffer(rows, model.fusion->spec.wide_attention ? 2 * model.hidden : 0);
  draft_logits = buffer(rows, model.fusion->places != nullptr ? model.head.rows : 0);
  handed_on = DeviceArray<std::int32_t>(static_cast<std::size_t>(rows), device);
}

void StepBuffers::make_plans(const DeviceModel& model, int rows, kernels::cuda::Stream& stream) {
  const int device = stream.device();
  const std::int64_t pairs = rows * most(model, [](const DeviceLayer& layer) { return layer.ffn.experts_per_token(); });
  const std::int64_t experts_of_layer = most(model, [](const DeviceLayer& layer) { return layer.ffn.gate_up.experts; });
  plan = PlanBuffer(experts_of_layer, pairs, device);
  expert_weight = DeviceArray<float>(static_cast<std::size_t>(pairs), device);
  active = DeviceArray<std::int32_t>(model.layers.size(), device);
  if (most(model, [](const DeviceLayer& layer) { return layer.ffn.shared.width; }) > 0) {
    shared_plan = PlanBuffer(1, rows, device);
    shared_weight = DeviceArray<float>(static_cast<std::size_t>(rows), device);
    shared_active = DeviceArray<std::int32_t>(1, device);
  }
  if (most(model, [](const DeviceLayer& layer) { return layer.ffn.scales_input ? 1 : 0; }) > 0) {
    const std::vector<float> same(static_cast<std::size_t>(pairs), model.product_scale);
    product_scales = DeviceArray<float>(same.size(), device);
    stream.copy(product_scales.data(), same.data(), same.size() * sizeof(float));
    stream.synchronize();
  }
  std::size_t chosen = 0;
  for (const DeviceLayer& layer : model.layers) {
    first_expert.push_back(chosen);
    chosen += static_cast<std::size_t>(rows) * static_cast<std::size_t>(layer.ffn.experts_per_token());
  }
  experts = DeviceArray<std::int32_t>(chosen, device);
}

}  // namespace specmoe::nn::cuda
