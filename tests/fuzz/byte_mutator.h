#pragma once

#include <cstddef>
#include <random>
#include <string>
#include <vector>

namespace specmoe::testing {

/// Damages text at random places: bytes changed, cut out, repeated, or replaced by words that parsers trip over.
class ByteMutator {
 public:
  ByteMutator(unsigned seed, std::vector<std::string> words) : random_(seed), words_(std::move(words)) {}

  std::string operator()(std::string text) {
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) edit(text);
    return text;
  }
  std::size_t below(std::size_t limit) { return random_() % limit; }

 private:
  void edit(std::string& text) {
    const std::size_t at = below(text.size() + 1);
    const std::size_t length = std::min(text.size() - at, 1 + below(12));
    switch (below(6)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(random_());
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(below(text.size() + 1), 1 + below(40)));
        break;
      case 3:
        text.insert(at, words_[below(words_.size())]);
        break;
      default:
        replace_number(text, at);
    }
  }
  /// The next number after `at` becomes a word.
  void replace_number(std::string& text, std::size_t at) {
    const std::size_t begin = text.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    const std::size_t end = std::min(text.size(), text.find_first_not_of("0123456789", begin));
    text.replace(begin, end - begin, words_[below(words_.size())]);
  }

  std::mt19937 random_;
  std::vector<std::string> words_;
};

}  // namespace specmoe::testing
