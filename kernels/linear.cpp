#include "kernels/linear.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const PackedMatrix&, const float*, Rows<const float>, Rows<float>,
                      const Ranges&)>
    packed_linear("packed_linear");
constinit Kernel<void(Rows<const float>, const PackedMatrix&, const float*, const LogitShape&, BestLogit*, Shard)>
    linear_argmax("linear_argmax");

void LogitShape::apply(float* logits, std::int64_t n) const {
  if (scale != 1.0f) {
    for (std::int64_t i = 0; i < n; ++i) logits[i] *= scale;
  }
  if (softcap > 0.0f) {
    for (std::int64_t i = 0; i < n; ++i) logits[i] = softcap * std::tanh(logits[i] / softcap);
  }
}

namespace {

float product(const float* x, const PackedMatrix& weight, std::int64_t n, const float* bias) {
  float sum = 0;
  for (std::int64_t k = 0; k < weight.cols(); ++k) sum += x[k] * weight.at(n, k);
  return bias != nullptr ? sum + bias[n] : sum;
}

void packed_linear_scalar(Rows<const float> x, const PackedMatrix& weight, const float* bias,
                          Rows<const float> residual, Rows<float> out, const Ranges& panels) {
  for (const Range& part : panels) {
    const std::int64_t end = std::min(weight.rows(), part.end * PackedMatrix::kPanel);
    for (std::int64_t t = 0; t < x.rows; ++t) {
      for (std::int64_t n = part.begin * PackedMatrix::kPanel; n < end; ++n) {
        const float sum = product(x.row(t), weight, n, bias);
        out.row(t)[n] = residual.data != nullptr ? sum + residual.row(t)[n] : sum;
      }
    }
  }
}

void linear_argmax_scalar(Rows<const float> x, const PackedMatrix& weight, const float* bias, const LogitShape& shape,
                          BestLogit* best, Shard shard) {
  const Range columns = split(weight.rows(), shard, PackedMatrix::kPanel);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    best[t] = {};
    for (std::int64_t n = columns.begin; n < columns.end; ++n) {
      float logit = product(x.row(t), weight, n, bias);
      shape.apply(&logit, 1);
      if (!std::isnan(logit)) best[t].offer({logit, static_cast<std::int32_t>(n)});
    }
  }
}

SPECMOE_KERNEL(packed_linear, Backend::kScalar, packed_linear_scalar);
SPECMOE_KERNEL(linear_argmax, Backend::kScalar, linear_argmax_scalar);

}  // namespace
}  // namespace specmoe::kernels
