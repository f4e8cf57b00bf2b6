#pragma once

namespace specmoe::kernels {

/// What stands between gate and up in a feed-forward part: hidden = f(gate) * up, silu(x) = x / (1 + e^-x).
struct Activation {
  enum class Kind {
    kSilu,      // f = silu
    kGeluTanh,  // f(x) = x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    kClamped,   // gate' = min(gate, limit), up' = clamp(up, +-limit): gate' / (1 + e^(-alpha gate')) * (up' + 1)
  };
  Kind kind = Kind::kSilu;
  float alpha = 1.702f;
  float limit = 7.0f;

  bool operator==(const Activation&) const = default;
};

}  // namespace specmoe::kernels
