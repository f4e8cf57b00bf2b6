#pragma once

// The words of a benchmark's command line: in order, most with a default.

#include <charconv>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"

namespace specmoe::bench {

class Arguments {
 public:
  Arguments(int argc, char** argv) : words_(argv + 1, argv + argc) {}

  std::size_t size() const { return words_.size(); }
  bool asks_for_help() const { return !words_.empty() && (words_[0] == "--help" || words_[0] == "-h"); }

  /// Word i, from 0, or `fallback` where there are fewer.
  std::string text(std::size_t i, std::string_view fallback = {}) const {
    return i < words_.size() ? words_[i] : std::string(fallback);
  }

  /// The same as a whole number, at least `least`. Throws Error with `name`, which the usage gives it.
  int integer(std::size_t i, std::string_view name, int fallback, int least) const {
    if (i >= words_.size()) return fallback;
    const std::string& word = words_[i];
    int number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    SPECMOE_CHECK(error == std::errc{} && end == word.data() + word.size() && number >= least, name,
                  " is a whole number from ", least, " on, got '", word, "'");
    return number;
  }

 private:
  std::vector<std::string> words_;
};

/// main() of a benchmark, of which `usage` says its name and then its words. Returns 0; 1 with the text of what `run`
/// throws; 2 with the usage for fewer than `required` words.
inline int main_of(int argc, char** argv, const std::string& usage, std::size_t required,
                   const std::function<void(const Arguments&)>& run) {
  const Arguments arguments(argc, argv);
  if (arguments.asks_for_help() || arguments.size() < required) {
    std::fprintf(arguments.asks_for_help() ? stdout : stderr, "usage: %s\n", usage.c_str());
    return arguments.asks_for_help() ? 0 : 2;
  }
  try {
    run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", usage.substr(0, usage.find(' ')).c_str(), error.what());
    return 1;
  }
  return 0;
}

}  // namespace specmoe::bench
