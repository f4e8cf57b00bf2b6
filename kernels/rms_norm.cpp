#include "kernels/rms_norm.h"

#include <cmath>

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const float*, float, Rows<float>)> rms_norm("rms_norm");

namespace {

void rms_norm_scalar(Rows<const float> x, const float* weight, float eps, Rows<float> out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* in = x.row(t);
    float sum = 0;
    for (std::int64_t d = 0; d < x.cols; ++d) sum += in[d] * in[d];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(x.cols) + eps);
    for (std::int64_t d = 0; d < x.cols; ++d) out.row(t)[d] = weight[d] * (in[d] * scale);
  }
}

SPECMOE_KERNEL(rms_norm, Backend::kScalar, rms_norm_scalar);

}  // namespace
}  // namespace specmoe::kernels
