#include "core/nn/cuda/decode_step.h"

namespace specmoe::nn::cuda {

using kernels::MoeUp;
using kernels::Rows;
using kernels::cuda::DeviceMatrices;
using kernels::cuda::DevicePlan;

namespace {

/// Softmax of all or of the chosen, with nothing more: what has a kernel of its own.
bool plain_softmax(const DeviceFfn& ffn) {
  using Score = kernels::Routing::Score;
  const kernels::Routing& routing = ffn.routing;
  return (routing.score == Score::kSoftmax || routing.score == Score::kSoftmaxOfChosen) && routing.groups == 1 &&
         routing.scale == 1.0F && routing.epsilon == 0.0F && ffn.choice_bias == nullptr;
}

}  // namespace

void DecodeStep::feed_forward(const DeviceLayer& layer, int index, const Size& size) {
  const DeviceFfn& ffn = layer.ffn;
  const int k = ffn.experts_per_token();
  const kernels::cuda::RowCount rows = all_rows(size);
  const std::int64_t pairs = std::int64_t{size.rows} * k;
  const Rows<float> x = rows_of(buffers_.x, size, model_.hidden);
  const Rows<float> normed = rows_of(buffers_.normed, size, model_.hidden);
  const Rows<float> hidden = buffers_.hidden.view(pairs, ffn.width);
  const DevicePlan plan = buffers_.plan.view(k, buffers_.active.data() + index);
  normalise(x, rows, layer.ffn_norm, normed);
  route(ffn, plan, index, size);
  const MoeUp how = {ffn.activation, ffn.scales_input ? buffers_.expert_weight.data() : nullptr, ffn.up_bias};
  expert_up(size, ffn.routed(), ffn.gate_up, plan, how, hidden);
  if (ffn.shared.width > 0) shared_up(ffn, size);

  const bool sandwich = layer.ffn_out_norm.weight != nullptr;
  const Rows<float> out = sandwich ? rows_of(buffers_.branch, size, model_.hidden) : x;
  const float* weight = ffn.scales_input ? buffers_.product_scales.data() : buffers_.expert_weight.data();
  expert_down(size, ffn.routed(), hidden, ffn.down, plan, weight, ffn.down_bias, sandwich ? Rows<float>{} : x, out);
  if (ffn.shared.width > 0) {
    expert_down(size, false, buffers_.shared_hidden.view(size.rows, ffn.shared.width), ffn.shared.down,
                buffers_.shared_plan.view(1, buffers_.shared_active.data()), buffers_.shared_weight.data(), nullptr,
                out, out);
  }
  if (sandwich) {
    kernels::cuda::add_normed(out, rows, layer.ffn_out_norm, model_.norm_eps, model_.residual_scale, x, stream_);
  }
}

void DecodeStep::expert_up(const Size& size, bool routed, const DeviceMatrices& gate_up, const DevicePlan& plan,
                           const MoeUp& how, Rows<float> hidden) {
  const Rows<float> normed = rows_of(buffers_.normed, size, model_.hidden);
  if (size.dense && !routed) return dense_->multiply_gate_up(normed, gate_up.shape, how.bias, how.activation, hidden);
  kernels::cuda::moe_up(normed, all_rows(size), gate_up, plan, how, hidden, stream_);
}

void DecodeStep::expert_down(const Size& size, bool routed, Rows<const float> hidden, const DeviceMatrices& down,
                             const DevicePlan& plan, const float* weight, const float* bias, Rows<const float> residual,
                             Rows<float> out) {
  if (size.dense && !routed) return dense_->multiply(hidden, down.shape, bias, residual, out, weight);
  kernels::cuda::moe_down(hidden, all_rows(size), down, plan, weight, bias, residual,
                          buffers_.down.view(hidden.rows, model_.hidden), buffers_.down_counters.data(), out, stream_);
}

/// The plan of the pass and the weight of every pair, product_scale included but for scaled inputs.
void DecodeStep::route(const DeviceFfn& ffn, const DevicePlan& plan, int index, const Size& size) {
  const kernels::cuda::RowCount rows = all_rows(size);
  float* weight = buffers_.expert_weight.data();
  if (!ffn.routed()) {
    kernels::cuda::route_to_one(rows, {}, model_.product_scale, weight, plan, stream_);
    return;
  }
  const Rows<float> normed = rows_of(buffers_.normed, size, model_.hidden);
  const Rows<float> logits = rows_of(buffers_.router_logits, size, ffn.router.rows);
  std::int32_t* expert = buffers_.experts.data() + expert_offset(index);
  kernels::cuda::packed_linear(normed, rows, ffn.router, ffn.router_bias, {}, logits, stream_);
  if (plain_softmax(ffn)) {
    const bool of_chosen = ffn.routing.score == kernels::Routing::Score::kSoftmaxOfChosen;
    kernels::cuda::route(logits, rows, ffn.routing.renormalise || of_chosen, expert, weight, plan, stream_,
                         plan_sorter_.get());
  } else {
    kernels::cuda::route_by_rule(logits, rows, ffn.routing, ffn.choice_bias, expert, weight, plan, stream_,
                                 plan_sorter_.get());
  }
}

/// The shared expert takes every row, with the weight that its gate gives.
void DecodeStep::shared_up(const DeviceFfn& ffn, const Size& size) {
  const DeviceSharedExpert& shared = ffn.shared;
  const kernels::cuda::RowCount rows = all_rows(size);
  const Rows<float> normed = rows_of(buffers_.normed, size, model_.hidden);
  const DevicePlan plan = buffers_.shared_plan.view(1, buffers_.shared_active.data());
  Rows<float> gate;
  if (shared.gate.rows > 0) {
    gate = rows_of(buffers_.shared_gate, size, 1);
    kernels::cuda::packed_linear(normed, rows, shared.gate, nullptr, {}, gate, stream_);
  }
  kernels::cuda::route_to_one(rows, gate, model_.product_scale, buffers_.shared_weight.data(), plan, stream_);
  expert_up(size, false, shared.gate_up, plan, {ffn.activation}, buffers_.shared_hidden.view(size.rows, shared.width));
}

}  // namespace specmoe::nn::cuda
