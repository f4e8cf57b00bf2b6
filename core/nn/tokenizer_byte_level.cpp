#include "core/nn/tokenizer_byte_level.h"

#include "core/nn/tokenizer_utf8.h"

namespace specmoe::nn {
namespace {

constexpr int kFirstMoved = 0x100;
constexpr int kMovedCount = 68;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/// byte[c]: the byte behind stand-in c, -1 for none.
constexpr std::array<int, kFirstMoved + kMovedCount> make_bytes() {
  std::array<int, kFirstMoved + kMovedCount> result{};
  int moved = kFirstMoved;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = stands_for_itself(byte);
    result[byte] = itself ? byte : -1;
    if (!itself) result[moved++] = byte;
  }
  return result;
}

constexpr auto kBytes = make_bytes();

}  // namespace

const std::array<std::string, 256>& byte_level_alphabet() {
  static const std::array<std::string, 256> alphabet = [] {
    std::array<std::string, 256> result;
    for (std::size_t c = 0; c < kBytes.size(); ++c) {
      if (kBytes[c] >= 0) append_utf8(result[kBytes[c]], static_cast<char32_t>(c));
    }
    return result;
  }();
  return alphabet;
}

std::optional<std::uint8_t> byte_level_byte(char32_t stand_in) {
  if (stand_in >= kBytes.size() || kBytes[stand_in] < 0) return std::nullopt;
  return static_cast<std::uint8_t>(kBytes[stand_in]);
}

}  // namespace specmoe::nn
