#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace specmoe::nn {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// kBroken      the `length` bytes are a maximal part that can never become a character
/// kIncomplete  the text ends inside a character that more bytes could complete
enum class Utf8Kind : std::uint8_t { kCharacter, kBroken, kIncomplete };

struct Utf8Step {
  char32_t code_point = 0;
  std::uint8_t length = 0;
  Utf8Kind kind = Utf8Kind::kCharacter;
};

/// The first step over `text`, which is not empty. Broken parts are cut as Unicode recommends (and Python and Rust do).
Utf8Step utf8_step(std::string_view text);

bool is_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t code_point);

/// Calls visit(code_point, bytes of the character) over valid UTF-8.
template <class Visit>
void for_each_character(std::string_view text, Visit&& visit) {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    visit(step.code_point, text.substr(0, step.length));
    text.remove_prefix(step.length);
  }
}

/// Unicode White_Space.
bool is_white_space(char32_t code_point);

}  // namespace specmoe::nn
