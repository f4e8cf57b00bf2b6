#include "kernels/sampling.h"

#include <cmath>

#include "kernels/cpu/probability_cut.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, std::int32_t*)> row_argmax("row_argmax");
constinit Kernel<void(const float*, std::int64_t, const SamplingRule&, float*, std::int32_t*)> sampling_probs(
    "sampling_probs");

namespace {

void row_argmax_scalar(Rows<const float> x, std::int32_t* argmax) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* row = x.row(t);
    std::int32_t best = -1;
    for (std::int32_t i = 0; i < x.cols; ++i) {
      if (best < 0 ? !std::isnan(row[i]) : row[i] > row[best]) best = i;
    }
    argmax[t] = best;
  }
}

void sampling_probs_scalar(const float* logits, std::int64_t vocab, const SamplingRule& rule, float* probs,
                           std::int32_t* scratch) {
  float largest = -INFINITY;
  for (std::int64_t i = 0; i < vocab; ++i) largest = std::max(largest, logits[i]);
  double total = 0;
  for (std::int64_t i = 0; i < vocab; ++i) {
    probs[i] = std::exp((logits[i] - largest) / rule.temperature);
    total += static_cast<double>(probs[i]);
  }
  const auto scale = static_cast<float>(1.0 / total);
  for (std::int64_t i = 0; i < vocab; ++i) probs[i] *= scale;
  cut_probabilities(probs, vocab, scale, rule, scratch);  // e^0 * scale is the largest
}

SPECMOE_KERNEL(row_argmax, Backend::kScalar, row_argmax_scalar);
SPECMOE_KERNEL(sampling_probs, Backend::kScalar, sampling_probs_scalar);

}  // namespace
}  // namespace specmoe::kernels
