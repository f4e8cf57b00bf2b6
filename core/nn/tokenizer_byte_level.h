#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace specmoe::nn {

/// The printable stand-in of every byte in a byte-level vocabulary (GPT-2): visible Latin-1 stands for itself, the
/// other 68 bytes for U+0100, U+0101, ... in order.
const std::array<std::string, 256>& byte_level_alphabet();

/// The byte that a stand-in stands for; nothing for any other character.
std::optional<std::uint8_t> byte_level_byte(char32_t stand_in);

}  // namespace specmoe::nn
