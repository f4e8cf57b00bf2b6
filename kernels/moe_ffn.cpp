#include "kernels/moe_ffn.h"

#include "kernels/activate.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const PackedMatrix*, const MoePlan&, const MoeUp&, Rows<float>, Shard)> moe_up(
    "moe_up");
constinit Kernel<void(Rows<const float>, const PackedMatrix*, const MoePlan&, const float*, const float*,
                      Rows<const float>, Rows<float>, Rows<float>, Shard)>
    moe_down("moe_down");

namespace {

constexpr std::int64_t kPanel = PackedMatrix::kPanel;

float dot(const float* x, const PackedMatrix& weight, std::int64_t row) {
  float sum = 0;
  for (std::int64_t k = 0; k < weight.cols(); ++k) sum += x[k] * weight.at(row, k);
  return sum;
}

void moe_up_scalar(Rows<const float> x, const PackedMatrix* gate_up, const MoePlan& plan, const MoeUp& how,
                   Rows<float> hidden, Shard shard) {
  const Range columns = split(hidden.cols, shard, kPanel);
  for (std::size_t a = 0; a < plan.experts.size(); ++a) {
    const PackedMatrix& weight = gate_up[plan.experts[a]];
    const float* bias = how.bias == nullptr ? nullptr : how.bias + plan.experts[a] * 2 * hidden.cols;
    for (std::int32_t i = plan.offsets[a]; i < plan.offsets[a + 1]; ++i) {
      const std::int64_t pair = plan.pairs[static_cast<std::size_t>(i)];
      const float* in = x.row(pair / plan.k);
      const float factor = how.input_weight == nullptr ? 1.0f : how.input_weight[pair];
      for (std::int64_t n = columns.begin; n < columns.end; ++n) {
        const std::int64_t gate_row = n / kPanel * 2 * kPanel + n % kPanel;
        float gate = factor * dot(in, weight, gate_row);
        float up = factor * dot(in, weight, gate_row + kPanel);
        if (bias != nullptr) {
          gate += bias[n];
          up += bias[hidden.cols + n];
        }
        hidden.row(pair)[n] = activate(how.activation, gate, up);
      }
    }
  }
}

void moe_down_scalar(Rows<const float> hidden, const PackedMatrix* down, const MoePlan& plan, const float* weight,
                     const float* bias, Rows<const float> residual, Rows<float> scratch, Rows<float> out, Shard shard) {
  const Range columns = split(out.cols, shard, kPanel);
  for (std::size_t a = 0; a < plan.experts.size(); ++a) {
    const float* added = bias == nullptr ? nullptr : bias + plan.experts[a] * out.cols;
    for (std::int32_t i = plan.offsets[a]; i < plan.offsets[a + 1]; ++i) {
      const std::int64_t pair = plan.pairs[static_cast<std::size_t>(i)];
      for (std::int64_t n = columns.begin; n < columns.end; ++n) {
        scratch.row(pair)[n] = dot(hidden.row(pair), down[plan.experts[a]], n) + (added == nullptr ? 0.0f : added[n]);
      }
    }
  }
  for (std::int64_t t = 0; t < out.rows; ++t) {
    for (std::int64_t n = columns.begin; n < columns.end; ++n) {
      float sum = residual.data == nullptr ? 0.0f : residual.row(t)[n];
      for (std::int64_t rank = 0; rank < plan.k; ++rank) {
        sum += weight[t * plan.k + rank] * scratch.row(t * plan.k + rank)[n];
      }
      out.row(t)[n] = sum;
    }
  }
}

SPECMOE_KERNEL(moe_up, Backend::kScalar, moe_up_scalar);
SPECMOE_KERNEL(moe_down, Backend::kScalar, moe_down_scalar);

}  // namespace
}  // namespace specmoe::kernels
