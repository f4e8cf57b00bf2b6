#include "kernels/linear.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const PackedMatrix&, const float*, Rows<const float>, Rows<float>, Shard)>
    packed_linear("packed_linear");

namespace {

void packed_linear_scalar(Rows<const float> x, const PackedMatrix& weight, const float* bias,
                          Rows<const float> residual, Rows<float> out, Shard shard) {
  const Range columns = split(weight.rows(), shard, PackedMatrix::kPanel);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t n = columns.begin; n < columns.end; ++n) {
      float sum = 0;
      for (std::int64_t k = 0; k < weight.cols(); ++k) sum += x.row(t)[k] * weight.at(n, k);
      if (bias != nullptr) sum += bias[n];
      if (residual.data != nullptr) sum += residual.row(t)[n];
      out.row(t)[n] = sum;
    }
  }
}

SPECMOE_KERNEL(packed_linear, Backend::kScalar, packed_linear_scalar);

}  // namespace
}  // namespace specmoe::kernels
