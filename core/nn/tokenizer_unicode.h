#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace specmoe::nn {

/// Characters first..last all have this canonical combining class.
struct CombiningRange {
  char32_t first;
  char32_t last;
  std::uint8_t combining_class;
};

/// One step of canonical decomposition; second is 0 when the character becomes a single other one. Where `composes`,
/// the pair composes back.
struct Decomposition {
  char32_t composed;
  char32_t first;
  char32_t second;
  bool composes;
};

/// Sorted tables, written by tokenizer_unicode_data.py.
std::span<const CombiningRange> combining_ranges();
std::span<const Decomposition> decompositions();

/// A character of normalised text and how it relates to the text before: 1, it is new; 0, it replaces one character;
/// -n, it replaces one character and swallows the n that follow.
struct NormalizedChar {
  char32_t code_point;
  int change;
};

/// Whether `text` is certainly in NFC already (every character below U+0300).
bool surely_nfc(std::string_view text);

/// Unicode Normalization Form C of valid UTF-8.
std::vector<NormalizedChar> nfc(std::string_view text);

}  // namespace specmoe::nn
