#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/types.h"

namespace specmoe::nn {

/// A hostile string made fit for a one-line error: quoted, cut, control characters masked.
std::string in_quotes(std::string_view text);

/// Parses a tokenizer.json. Throws Error for anything but one JSON object of sane depth.
nlohmann::json parse_tokenizer_json(std::string_view document);

/// One component of a tokenizer.json ({"type": "Digits", ...}), read with errors that say which field of which
/// component is wrong. Borrows the JSON value.
class JsonComponent {
 public:
  /// where  the field that holds it, for example "pre_tokenizer"
  JsonComponent(const nlohmann::json& value, std::string where);

  const std::string& type() const { return type_; }
  const std::string& where() const { return where_; }

  /// Throws Error naming any field that is not in the list: an option we do not know may change the result.
  void allow_only(std::initializer_list<std::string_view> fields) const;
  /// Throws Error: the component's type is none of `supported`.
  [[noreturn]] void refuse_type(std::string_view supported) const;

  bool has(const char* field) const;  // present and not null
  const nlohmann::json& at(const char* field) const;
  bool flag(const char* field) const;
  bool flag(const char* field, bool otherwise) const;
  std::string text(const char* field) const;
  std::int64_t integer(const char* field) const;
  const nlohmann::json& array(const char* field) const;
  const nlohmann::json& object(const char* field) const;
  /// A string of exactly one character.
  std::string character(const char* field) const;

 private:
  [[noreturn]] void refuse(const char* field, std::string_view wanted) const;

  const nlohmann::json& value_;
  std::string where_;
  std::string type_;
};

/// A token id: a whole number in [0, 2^31). Throws Error naming `what`.
TokenId read_token_id(const nlohmann::json& value, std::string_view what);

}  // namespace specmoe::nn
