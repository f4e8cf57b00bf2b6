#include "core/sampling_params.h"

#include <cmath>

#include "kernels/check.h"

namespace specmoe {

void SamplingParams::validate() const {
  SPECMOE_CHECK(std::isfinite(temperature) && temperature >= 0.0,
                "temperature must be 0 (greedy) or a positive number, got ", temperature);
  SPECMOE_CHECK(top_k >= 0, "top_k must be 0 (no cut) or more, got ", top_k);
  SPECMOE_CHECK(top_p > 0.0 && top_p <= 1.0, "top_p must be above 0 and at most 1, got ", top_p);
}

}  // namespace specmoe
