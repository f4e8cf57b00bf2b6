#pragma once

#include <cmath>
#include <cstdint>

#include "core/logits_processor.h"

namespace specmoe::test {

/// Leaves, after a text, each third token; which ones hangs on all of the text, so that siblings differ in it.
class EveryThird final : public LogitsProcessor {
 public:
  static bool allows(std::span<const TokenId> text, TokenId token) { return (mixed(0, text) + token) % 3 == 0; }
  void process(std::span<const TokenId> prompt, std::span<const TokenId> output, std::span<float> logits) override {
    const std::uint64_t text = mixed(mixed(0, prompt), output);
    for (std::size_t x = 0; x < logits.size(); ++x) {
      if ((text + x) % 3 != 0) logits[x] = -INFINITY;
    }
  }

 private:
  /// Under 2^32. Not a sum: of tokens that are each chosen to make a sum whole, every sum would be.
  static std::uint64_t mixed(std::uint64_t value, std::span<const TokenId> text) {
    for (const TokenId token : text)
      value = ((value ^ static_cast<std::uint64_t>(token)) + 1) * 0x9E3779B97F4A7C15 >> 32;
    return value;
  }
};

}  // namespace specmoe::test
