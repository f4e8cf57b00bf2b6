#include "kernels/rope.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<float>, const float*, std::int64_t, const std::int32_t*)> rope("rope");

namespace {

void rope_scalar(Rows<float> x, const float* cos_sin, std::int64_t half, const std::int32_t* position) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* cosine = cos_sin + position[t] * 2 * half;
    const float* sine = cosine + half;
    float* first = x.row(t);
    float* second = first + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float x1 = first[i];
      const float x2 = second[i];
      first[i] = x1 * cosine[i] - x2 * sine[i];
      second[i] = x2 * cosine[i] + x1 * sine[i];
    }
  }
}

SPECMOE_KERNEL(rope, Backend::kScalar, rope_scalar);

}  // namespace
}  // namespace specmoe::kernels
