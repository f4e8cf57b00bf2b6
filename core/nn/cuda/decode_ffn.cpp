#include "core/nn/cuda/decode_step.h"

namespace specmoe::nn::cuda {

using kernels::MoeUp;
using kernels::Rows;
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
  const Rows<float> scratch = buffers_.down.view(pairs, model_.hidden);
  const DevicePlan plan = buffers_.plan.view(k, buffers_.active.data() + index);
  normalise(x, rows, layer.ffn_norm, normed);
  route(ffn, plan, index, size);
  const MoeUp how = {ffn.activation, ffn.scales_input ? buffers_.expert_weight.data() : nullptr, ffn.up_bias};
  kernels::cuda::moe_up(normed, rows, ffn.gate_up, plan, how, hidden, stream_);
  if (ffn.shared.width > 0) shared_up(ffn, size);

  const bool sandwich = layer.ffn_out_norm.weight != nullptr;
  const Rows<float> out = sandwich ? rows_of(buffers_.branch, size, model_.hidden) : x;
  const float* weight = ffn.scales_input ? buffers_.product_scales.data() : buffers_.expert_weight.data();
  kernels::cuda::moe_down(hidden, rows, ffn.down, plan, weight, ffn.down_bias, sandwich ? Rows<float>{} : x, scratch,
                          buffers_.down_counters.data(), out, stream_);
  if (ffn.shared.width > 0) {
    kernels::cuda::moe_down(buffers_.shared_hidden.view(size.rows, ffn.shared.width), rows, ffn.shared.down,
                            buffers_.shared_plan.view(1, buffers_.shared_active.data()), buffers_.shared_weight.data(),
                            nullptr, out, scratch, buffers_.down_counters.data(), out, stream_);
  }
  if (sandwich) {
    kernels::cuda::add_normed(out, rows, layer.ffn_out_norm, model_.norm_eps, model_.residual_scale, x, stream_);
  }
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
  kernels::cuda::moe_up(normed, rows, shared.gate_up, plan, {ffn.activation},
                        buffers_.shared_hidden.view(size.rows, shared.width), stream_);
}

}  // namespace specmoe::nn::cuda
