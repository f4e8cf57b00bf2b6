#include "core/params.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "kernels/check.h"

namespace specmoe {
namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

bool is_identifier(std::string_view text) {
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0]))) return false;
  for (unsigned char c : text) {
    if (!std::isalnum(c) && c != '_') return false;
  }
  return true;
}

/// Cuts at commas outside parentheses and quotes.
std::vector<std::string_view> split_arguments(std::string_view text, std::string_view spec) {
  std::vector<std::string_view> parts;
  int depth = 0;
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') quoted = !quoted;
    if (quoted) continue;
    if (text[i] == '(') ++depth;
    if (text[i] == ')') --depth;
    SPECMOE_CHECK(depth >= 0, "'", spec, "': a closing parenthesis too many");
    if (text[i] == ',' && depth == 0) {
      parts.push_back(trim(text.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  SPECMOE_CHECK(depth == 0, "'", spec, "': a parenthesis is not closed");
  SPECMOE_CHECK(!quoted, "'", spec, "': a quotation mark is not closed");
  parts.push_back(trim(text.substr(begin)));
  return parts;
}

std::string unquote(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return std::string(text);
}

/// `key` of `key=value`, or npos for a positional value: a path or a nested spec may hold '=' further in.
std::size_t key_end(std::string_view argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string_view::npos || !is_identifier(trim(argument.substr(0, equals)))) {
    return std::string_view::npos;
  }
  return equals;
}

/// A value as a spec has it: in quotes where it would be read as something else without.
std::string as_argument(const std::string& value) {
  int depth = 0, least = 0;
  bool in_quotes = false, splits = false;
  for (const char c : value) {
    if (c == '"') in_quotes = !in_quotes;
    if (in_quotes) continue;
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    least = std::min(least, depth);
    splits |= c == ',' && depth == 0;
  }
  const bool reads_back = !splits && depth == 0 && least == 0 && trim(value) == value && unquote(value) == value &&
                          key_end(value) == std::string_view::npos;
  return reads_back ? value : '"' + value + '"';
}

std::string format_real(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return {buffer, end.ptr};
}

}  // namespace

Params Params::parse(std::string_view spec) {
  Params params;
  const std::string_view whole = trim(spec);
  const std::size_t open = whole.find('(');
  params.name_ = std::string(trim(whole.substr(0, open)));
  SPECMOE_CHECK(is_identifier(params.name_), "'", spec, "': expected name or name(key=value, ...)");
  if (open == std::string_view::npos) return params;
  SPECMOE_CHECK(whole.back() == ')', "'", spec, "': expected ')' at the end");
  const std::string_view inside = trim(whole.substr(open + 1, whole.size() - open - 2));
  if (inside.empty()) return params;
  bool named = false;
  for (std::string_view argument : split_arguments(inside, spec)) {
    SPECMOE_CHECK(!argument.empty(), "'", spec, "': an empty parameter between commas");
    const std::size_t equals = key_end(argument);
    if (equals == std::string_view::npos) {
      SPECMOE_CHECK(!named, "'", spec, "': positional value '", argument, "' after a named one");
      params.given_.push_back({"", unquote(argument)});
      continue;
    }
    named = true;
    const std::string key(trim(argument.substr(0, equals)));
    for (const Given& other : params.given_) {
      SPECMOE_CHECK(other.key != key, "'", spec, "': parameter '", key, "' is given twice");
    }
    params.given_.push_back({key, unquote(trim(argument.substr(equals + 1)))});
  }
  return params;
}

Params Params::describing(std::string name) {
  Params params;
  params.name_ = std::move(name);
  params.describing_ = true;
  return params;
}

Params::Given* Params::take(std::string_view key) {
  for (Given& given : given_) {
    if (!given.taken && given.key == key) return given.taken = true, &given;
  }
  for (Given& given : given_) {
    if (!given.taken && given.key.empty()) return given.taken = true, &given;
  }
  return nullptr;
}

void Params::declare(std::string_view key, std::string value, std::string_view meaning, bool list) {
  declared_.push_back({std::string(key), std::move(value), std::string(meaning), list});
}

int Params::integer(std::string_view key, int fallback, std::string_view meaning) {
  int value = fallback;
  if (const Given* given = take(key)) {
    const char* end = given->value.data() + given->value.size();
    const auto parsed = std::from_chars(given->value.data(), end, value);
    SPECMOE_CHECK(parsed.ec != std::errc::result_out_of_range, name_, ": ", key, " must be an integer from ",
                  std::numeric_limits<int>::min(), " to ", std::numeric_limits<int>::max(), ", got '", given->value,
                  "'");
    SPECMOE_CHECK(parsed.ec == std::errc() && parsed.ptr == end, name_, ": ", key, " must be an integer, got '",
                  given->value, "'");
  }
  declare(key, std::to_string(value), meaning);
  return value;
}

double Params::real(std::string_view key, double fallback, std::string_view meaning) {
  double value = fallback;
  if (const Given* given = take(key)) {
    const char* end = given->value.data() + given->value.size();
    const auto parsed = std::from_chars(given->value.data(), end, value);
    SPECMOE_CHECK(parsed.ec == std::errc() && parsed.ptr == end && std::isfinite(value), name_, ": ", key,
                  " must be a finite number, got '", given->value, "'");
  }
  declare(key, format_real(value), meaning);
  return value;
}

bool Params::boolean(std::string_view key, bool fallback, std::string_view meaning) {
  bool value = fallback;
  if (const Given* given = take(key)) {
    SPECMOE_CHECK(given->value == "true" || given->value == "false", name_, ": ", key, " must be true or false, got '",
                  given->value, "'");
    value = given->value == "true";
  }
  declare(key, value ? "true" : "false", meaning);
  return value;
}

std::string Params::text(std::string_view key, std::string_view fallback, std::string_view meaning) {
  const Given* given = take(key);
  std::string value = given != nullptr ? given->value : std::string(fallback);
  declare(key, value, meaning);
  return value;
}

std::string Params::required_text(std::string_view key, std::string_view meaning) {
  const Given* given = take(key);
  SPECMOE_CHECK(given != nullptr || describing_, name_, ": needs ", key, " (", meaning, "), as in ", name_, "(", key,
                "=...)");
  std::string value = given != nullptr ? given->value : "";
  declare(key, value, meaning);
  return value;
}

std::vector<std::string> Params::texts(std::string_view key, std::string_view meaning) {
  std::vector<std::string> values;
  std::string joined;
  for (Given& given : given_) {
    if (given.taken || !given.key.empty()) continue;
    given.taken = true;
    joined.append(joined.empty() ? "" : ",").append(as_argument(given.value));
    values.push_back(given.value);
  }
  declare(key, joined, meaning, true);
  return values;
}

std::vector<std::int64_t> Params::integers(std::string_view key, std::vector<std::int64_t> fallback,
                                           std::string_view meaning) {
  const std::vector<std::string> given = texts(key, meaning);
  std::vector<std::int64_t> values;
  for (const std::string& text : given) {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    SPECMOE_CHECK(parsed.ec == std::errc() && parsed.ptr == end, name_, ": ", key, " must be integers, got '", text,
                  "'");
    values.push_back(value);
  }
  if (given.empty()) values = std::move(fallback);
  std::string joined;
  for (std::int64_t value : values) joined.append(joined.empty() ? "" : ",").append(std::to_string(value));
  declared_.back().value = joined;
  return values;
}

void Params::finish() const {
  for (const Given& given : given_) {
    if (given.taken) continue;
    std::string accepted;
    for (const Declared& one : declared_) {
      SPECMOE_CHECK(!one.positional_list || given.key != one.key, name_, ": ", one.key,
                    " are given without a name, as in ", name_, "(", given.value, ", ...)");
      accepted += (accepted.empty() ? "" : ", ") + one.key;
    }
    if (accepted.empty()) accepted = "none";
    const std::string what = given.key.empty() ? "value '" + given.value + "'" : "parameter '" + given.key + "'";
    fail(name_, ": unexpected ", what, "; accepted parameters: ", accepted);
  }
}

std::string Params::canonical() const {
  std::string inside;
  for (const Declared& one : declared_) {
    if (one.positional_list && one.value.empty()) continue;
    const std::string item = one.positional_list ? one.value : one.key + "=" + as_argument(one.value);
    inside += (inside.empty() ? "" : ",") + item;
  }
  return inside.empty() ? name_ : name_ + "(" + inside + ")";
}

}  // namespace specmoe
