#include "core/nn/tokenizer_json.h"

#include <algorithm>
#include <limits>

#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

constexpr int kMaxDepth = 64;  // real files nest 6 deep; component readers recurse with the nesting

int nesting_depth(std::string_view document) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < document.size(); ++i) {
    const char c = document[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kMaxBytes = 60;
  std::string result = "\"";
  for (const char c : text.substr(0, kMaxBytes)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  return result + (text.size() > kMaxBytes ? "...\"" : "\"");
}

nlohmann::json parse_tokenizer_json(std::string_view document) {
  const int depth = nesting_depth(document);
  SPECMOE_CHECK(depth <= kMaxDepth, "tokenizer.json: expected at most ", kMaxDepth, " nested levels, got ", depth);
  nlohmann::json root;
  try {
    root = nlohmann::json::parse(document);
  } catch (const nlohmann::json::exception& error) {
    fail("tokenizer.json: expected valid JSON: ", std::string_view(error.what()).substr(0, 200));
  }
  SPECMOE_CHECK(root.is_object(), "tokenizer.json: expected a JSON object, got ", root.type_name());
  return root;
}

JsonComponent::JsonComponent(const nlohmann::json& value, std::string where) : value_(value), where_(std::move(where)) {
  SPECMOE_CHECK(value_.is_object(), "tokenizer.json: ", where_, ": expected an object, got ", value_.type_name());
  const auto type = value_.find("type");
  if (type == value_.end()) return;
  SPECMOE_CHECK(type->is_string(), "tokenizer.json: ", where_, ".type: expected a string, got ", type->type_name());
  type_ = type->get<std::string>();
}

void JsonComponent::allow_only(std::initializer_list<std::string_view> fields) const {
  for (const auto& item : value_.items()) {
    if (item.key() == "type") continue;
    SPECMOE_CHECK(std::find(fields.begin(), fields.end(), item.key()) != fields.end(), "tokenizer.json: ", where_, " ",
                  type_, ": option ", in_quotes(item.key()), " is not implemented");
  }
}

void JsonComponent::refuse_type(std::string_view supported) const {
  fail("tokenizer.json: ", where_, ": type ", in_quotes(type_), " is not implemented; implemented: ", supported);
}

void JsonComponent::refuse(const char* field, std::string_view wanted) const {
  const auto found = value_.find(field);
  fail("tokenizer.json: ", where_, type_.empty() ? "" : " ", type_, ": field \"", field, "\": expected ", wanted,
       ", got ", found == value_.end() ? "nothing" : found->type_name());
}

bool JsonComponent::has(const char* field) const {
  const auto found = value_.find(field);
  return found != value_.end() && !found->is_null();
}

const nlohmann::json& JsonComponent::at(const char* field) const {
  const auto found = value_.find(field);
  if (found == value_.end()) refuse(field, "a value");
  return *found;
}

bool JsonComponent::flag(const char* field) const {
  if (!has(field) || !at(field).is_boolean()) refuse(field, "true or false");
  return at(field).get<bool>();
}

bool JsonComponent::flag(const char* field, bool otherwise) const { return has(field) ? flag(field) : otherwise; }

std::string JsonComponent::text(const char* field) const {
  if (!has(field) || !at(field).is_string()) refuse(field, "a string");
  return at(field).get<std::string>();
}

std::int64_t JsonComponent::integer(const char* field) const {
  if (!has(field) || !at(field).is_number_integer()) refuse(field, "a whole number");
  const auto value = at(field).get<std::int64_t>();
  if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) refuse(field, "a number in [0, 2^31)");
  return value;
}

const nlohmann::json& JsonComponent::array(const char* field) const {
  if (!has(field) || !at(field).is_array()) refuse(field, "a list");
  return at(field);
}

const nlohmann::json& JsonComponent::object(const char* field) const {
  if (!has(field) || !at(field).is_object()) refuse(field, "an object");
  return at(field);
}

std::string JsonComponent::character(const char* field) const {
  std::string result = text(field);
  if (result.empty() || utf8_step(result).length != result.size()) refuse(field, "a string of one character");
  return result;
}

TokenId read_token_id(const nlohmann::json& value, std::string_view what) {
  const bool fits = value.is_number_unsigned() &&
                    value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<TokenId>::max());
  SPECMOE_CHECK(fits, "tokenizer.json: ", what, ": expected an id in [0, 2^31), got ", in_quotes(value.dump()));
  return value.get<TokenId>();
}

}  // namespace specmoe::nn
