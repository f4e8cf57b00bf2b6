#include "core/nn/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace specmoe::nn {

namespace {

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
float llama3_frequency(float frequency, const RopeSpec& spec) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double low = spec.low_frequency_factor;
  const double high = spec.high_frequency_factor;
  if (wavelength < spec.original_positions / high) return frequency;
  if (wavelength > spec.original_positions / low) return frequency / static_cast<float>(spec.factor);
  const double smooth = (spec.original_positions / wavelength - low) / (high - low);
  return static_cast<float>((1.0 - smooth) * frequency / spec.factor + smooth * frequency);
}

/// YaRN (Peng et al. 2023, arXiv:2309.00071): a ramp over dimensions from extrapolated to interpolated frequencies.
void stretch_yarn(std::vector<float>& frequencies, const RopeSpec& spec) {
  const double dim = spec.rotary_dim;
  const auto correction = [&](double rotations) {
    return dim * std::log(spec.original_positions / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(spec.theta));
  };
  double low = correction(spec.beta_fast);
  double high = correction(spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    frequencies[j] = static_cast<float>(frequencies[j] / spec.factor * ramp + frequencies[j] * (1.0 - ramp));
  }
}

}  // namespace

bool is_long(const RopeSpec& spec, int capacity) {
  return spec.kind == RopeKind::kLongrope && capacity > spec.original_positions;
}

std::vector<float> rope_frequencies(const RopeSpec& spec, bool long_context) {
  std::vector<float> frequencies(static_cast<std::size_t>(spec.rotary_dim) / 2);
  const std::vector<double>& factors = long_context ? spec.long_factors : spec.short_factors;
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(spec.rotary_dim);
    const float base = std::pow(static_cast<float>(spec.theta), exponent);
    frequencies[j] = 1.0F / (spec.kind == RopeKind::kLongrope ? static_cast<float>(factors[j]) * base : base);
    if (spec.kind == RopeKind::kLinear) frequencies[j] /= static_cast<float>(spec.factor);
    if (spec.kind == RopeKind::kLlama3) frequencies[j] = llama3_frequency(frequencies[j], spec);
    // kDynamic equals the default up to max_positions, and no text is longer.
  }
  if (spec.kind == RopeKind::kYarn) stretch_yarn(frequencies, spec);
  return frequencies;
}

void RopeTable::reserve(int positions, int capacity) {
  const bool long_context = is_long(spec_, capacity);
  std::vector<float>& rows = rows_[long_context ? 1 : 0];
  const auto half = static_cast<std::size_t>(this->half());
  const std::size_t have = half == 0 ? 0 : rows.size() / (2 * half);
  if (have >= static_cast<std::size_t>(positions)) return;
  const std::vector<float> frequencies = rope_frequencies(spec_, long_context);
  rows.resize(static_cast<std::size_t>(positions) * 2 * half);
  const auto sharpness = static_cast<float>(long_context ? spec_.long_attention_factor : spec_.attention_factor);
  for (std::size_t p = have; p < static_cast<std::size_t>(positions); ++p) {
    float* row = rows.data() + p * 2 * half;
    for (std::size_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(p) * frequencies[j];
      row[j] = std::cos(angle) * sharpness;
      row[half + j] = std::sin(angle) * sharpness;
    }
  }
}

}  // namespace specmoe::nn
