#pragma once

#include "tests/nn/model_fixture.h"

// What holds for the parts of a model (LanguageModel::partial) on every device.
namespace specmoe::nn::testing {

inline std::vector<float> logits_of(LanguageModel& model, std::span<const TokenId> ids) {
  const auto cache = model.new_cache(static_cast<int>(ids.size()), std::nullopt);
  return append(model, *cache, ids).logits;
}

/// Boundary i of a model is what the model without layers i and on hands to its final norm.
inline void expect_parts_hold_boundaries(LanguageModel& whole, const Fixture& fixture) {
  const int layers = whole.info().layers;
  const std::vector<std::int32_t> star(fixture.ids.size(), -1);
  const auto tapped = [&](LanguageModel& model, const std::vector<int>& taps) {
    const auto cache = model.new_cache(static_cast<int>(fixture.ids.size()), std::nullopt);
    return run_rows(model, *cache, fixture.ids, star, taps).tapped;
  };
  std::vector<int> left_out;
  for (int boundary = layers; boundary >= 1; --boundary) {
    const auto part = whole.partial({.skipped_layers = left_out});
    const std::vector<float> expected = tapped(*part, {boundary});
    const std::vector<float> both = tapped(whole, {layers + 1, boundary});
    const auto width = static_cast<std::size_t>(whole.info().hidden_size);
    for (std::size_t row = 0; row < fixture.ids.size(); ++row) {
      const auto own = std::span(both).subspan((2 * row + 1) * width, width);
      ASSERT_TRUE(same_bits(own, std::span(expected).subspan(row * width, width))) << fixture.name << " " << boundary;
    }
    left_out.insert(left_out.begin(), boundary - 1);
  }
}

}  // namespace specmoe::nn::testing
