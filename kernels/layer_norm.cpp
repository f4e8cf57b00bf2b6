#include "kernels/layer_norm.h"

#include <cmath>

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const float*, const float*, float, Rows<float>)> layer_norm("layer_norm");

namespace {

void layer_norm_scalar(Rows<const float> x, const float* weight, const float* bias, float eps, Rows<float> out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* in = x.row(t);
    float sum = 0;
    for (std::int64_t d = 0; d < x.cols; ++d) sum += in[d];
    const float mean = sum / static_cast<float>(x.cols);
    float squares = 0;
    for (std::int64_t d = 0; d < x.cols; ++d) squares += (in[d] - mean) * (in[d] - mean);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(x.cols) + eps);
    for (std::int64_t d = 0; d < x.cols; ++d) out.row(t)[d] = weight[d] * ((in[d] - mean) * scale) + bias[d];
  }
}

SPECMOE_KERNEL(layer_norm, Backend::kScalar, layer_norm_scalar);

}  // namespace
}  // namespace specmoe::kernels
