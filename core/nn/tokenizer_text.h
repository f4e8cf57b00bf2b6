#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace specmoe::nn {

/// A half-open range of bytes.
struct Span {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;

  bool empty() const { return begin == end; }
  bool operator==(const Span&) const = default;
};

/// Text on its way through the tokenizer: valid UTF-8, of which byte i came from the bytes source[i] of the caller's
/// text (the whole character, for a byte inside one).
struct AlignedText {
  std::string text;
  std::vector<Span> source;

  /// Broken parts of the caller's text become U+FFFD.
  static AlignedText from_caller(std::string_view text);

  void append(std::string_view added, Span from);
  void append_range(const AlignedText& other, Span range);
  AlignedText slice(Span range) const;

  std::string_view view(Span range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
  }
  /// Bytes of the caller's text behind a range that is not empty.
  Span source_of(Span range) const { return {source[range.begin].begin, source[range.end - 1].end}; }
  Span whole() const { return {0, static_cast<std::uint32_t>(text.size())}; }
};

/// A text cut into pieces, in order; text between pieces has been dropped.
struct Pieces {
  AlignedText body;
  std::vector<Span> pieces;
};

}  // namespace specmoe::nn
