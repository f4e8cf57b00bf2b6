#include "core/nn/tokenizer_unicode.h"

#include <algorithm>
#include <tuple>

#include "core/nn/tokenizer_utf8.h"

namespace specmoe::nn {
namespace {

// Hangul syllables compose by arithmetic (Unicode 3.12).
constexpr char32_t kSyllable = 0xAC00, kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kLeadingCount = 19, kVowelCount = 21, kTrailingCount = 28;
constexpr char32_t kSyllableCount = kLeadingCount * kVowelCount * kTrailingCount;

struct Element {
  char32_t code_point;
  std::uint8_t combining_class;
  int change;
};

std::uint8_t combining_class(char32_t c) {
  if (c < 0x300) return 0;
  const auto table = combining_ranges();
  const auto found =
      std::lower_bound(table.begin(), table.end(), c, [](const CombiningRange& r, char32_t x) { return r.last < x; });
  return found != table.end() && c >= found->first ? found->combining_class : 0;
}

const Decomposition* decomposition(char32_t c) {
  const auto table = decompositions();
  const auto found = std::lower_bound(table.begin(), table.end(), c,
                                      [](const Decomposition& d, char32_t x) { return d.composed < x; });
  return found != table.end() && found->composed == c ? &*found : nullptr;
}

/// Appends the full decomposition of c; only the very first character of it replaces c, the others are new.
void decompose(char32_t c, int change, std::vector<Element>& out) {
  if (c >= kSyllable && c < kSyllable + kSyllableCount) {
    const char32_t index = c - kSyllable;
    out.push_back({kLeading + index / (kVowelCount * kTrailingCount), 0, change});
    out.push_back({kVowel + index % (kVowelCount * kTrailingCount) / kTrailingCount, 0, 1});
    if (index % kTrailingCount != 0) out.push_back({kTrailing + index % kTrailingCount, 0, 1});
    return;
  }
  const Decomposition* step = c < 0xC0 ? nullptr : decomposition(c);
  if (step == nullptr) {
    out.push_back({c, combining_class(c), change});
    return;
  }
  decompose(step->first, change, out);
  if (step->second != 0) decompose(step->second, 1, out);
}

/// Stable sort of each run of non-starters by combining class.
void order_marks(std::vector<Element>& elements) {
  const auto is_starter = [](const Element& e) { return e.combining_class == 0; };
  for (auto at = elements.begin(); at != elements.end();) {
    const auto run = std::find_if_not(at, elements.end(), is_starter);
    const auto end = std::find_if(run, elements.end(), is_starter);
    std::stable_sort(run, end,
                     [](const Element& a, const Element& b) { return a.combining_class < b.combining_class; });
    at = end;
  }
}

/// The composite of a pair, 0 when there is none.
char32_t compose(char32_t first, char32_t second) {
  if (first >= kLeading && first < kLeading + kLeadingCount && second >= kVowel && second < kVowel + kVowelCount) {
    return kSyllable + ((first - kLeading) * kVowelCount + (second - kVowel)) * kTrailingCount;
  }
  const bool open_syllable =
      first >= kSyllable && first < kSyllable + kSyllableCount && (first - kSyllable) % kTrailingCount == 0;
  if (open_syllable && second > kTrailing && second < kTrailing + kTrailingCount) return first + (second - kTrailing);
  static const std::vector<Decomposition> pairs = [] {
    std::vector<Decomposition> result;
    std::copy_if(decompositions().begin(), decompositions().end(), std::back_inserter(result),
                 [](const Decomposition& d) { return d.composes; });
    std::sort(result.begin(), result.end(), [](const Decomposition& a, const Decomposition& b) {
      return std::tie(a.first, a.second) < std::tie(b.first, b.second);
    });
    return result;
  }();
  const auto found =
      std::lower_bound(pairs.begin(), pairs.end(), std::pair(first, second),
                       [](const Decomposition& d, const auto& pair) { return std::pair(d.first, d.second) < pair; });
  return found != pairs.end() && found->first == first && found->second == second ? found->composed : 0;
}

}  // namespace

bool surely_nfc(std::string_view text) {
  constexpr unsigned char kLeadOf300 = 0xCC;  // the first byte of U+0300 and of nothing below it
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < kLeadOf300; });
}

std::vector<NormalizedChar> nfc(std::string_view text) {
  std::vector<Element> elements;
  elements.reserve(text.size());
  for_each_character(text, [&](char32_t c, std::string_view) { decompose(c, 0, elements); });
  order_marks(elements);

  std::vector<NormalizedChar> result;
  result.reserve(elements.size());
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t starter = kNone;  // the character that later ones may compose with
  int last_class = -1;          // class of the last one kept since; -1: none
  for (const Element& element : elements) {
    const bool blocked = starter == kNone || last_class >= element.combining_class;
    const char32_t composite = blocked ? 0 : compose(result[starter].code_point, element.code_point);
    if (composite != 0) {
      result[starter].code_point = composite;
      result[starter].change += element.change - 1;
      continue;
    }
    result.push_back({element.code_point, element.change});
    last_class = element.combining_class;
    if (element.combining_class == 0) {
      starter = result.size() - 1;
      last_class = -1;
    }
  }
  return result;
}

}  // namespace specmoe::nn
