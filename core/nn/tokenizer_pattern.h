#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/nn/tokenizer_text.h"

struct re_pattern_buffer;  // Oniguruma's compiled expression

namespace specmoe::nn {

/// A compiled Oniguruma expression (Ruby syntax, UTF-8): the engine and syntax of the `tokenizers` package. Searching
/// is const and may be done from any number of threads.
class Regex {
 public:
  explicit Regex(std::string_view expression);

  /// Appends the successive matches in `text`, which must be valid UTF-8.
  void find_all(std::string_view text, std::vector<Span>& matches) const;
  bool matches_at_start(std::string_view text) const;

 private:
  struct Free {
    void operator()(re_pattern_buffer* compiled) const;
  };
  std::unique_ptr<re_pattern_buffer, Free> compiled_;
};

/// What a component looks for: {"String": "..."} or {"Regex": "..."}.
class Pattern {
 public:
  static Pattern literal(std::string text);
  static Pattern regex(std::string_view expression);
  static Pattern from_json(const nlohmann::json& value, std::string_view where);

  bool is_regex() const { return regex_ != nullptr; }
  /// Appends the successive matches in `text`.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

 private:
  Pattern() = default;

  std::string literal_;
  std::shared_ptr<const Regex> regex_;
};

}  // namespace specmoe::nn
