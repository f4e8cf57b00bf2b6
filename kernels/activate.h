#pragma once

#include <math.h>

#include "kernels/activation.h"
#include "kernels/host_device.h"

namespace specmoe::kernels {

/// activation(gate) * up, on the CPU as on a device.
SPECMOE_HD inline float activate(const Activation& activation, float gate, float up) {
  switch (activation.kind) {
    case Activation::Kind::kSilu:
      return gate / (1.0f + expf(-gate)) * up;
    case Activation::Kind::kGeluTanh:  // tanh(u) = 2 / (1 + e^(-2 u)) - 1
      return gate / (1.0f + expf(-1.5957691216f * (gate + 0.044715f * gate * gate * gate))) * up;
    case Activation::Kind::kClamped: {
      const float limit = activation.limit;
      const float low = limit < gate ? limit : gate;
      const float kept = up < -limit ? -limit : limit < up ? limit : up;
      return low / (1.0f + expf(-activation.alpha * low)) * (kept + 1.0f);
    }
  }
  return NAN;
}

}  // namespace specmoe::kernels
