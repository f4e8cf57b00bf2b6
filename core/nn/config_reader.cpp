#include "core/nn/config_reader.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/nn/mapped_file.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;

namespace {
/// Longer files are not configurations.
constexpr std::size_t kMaxConfigBytes = std::size_t{64} << 20;

/// Names go into messages, which are one line each.
bool printable(const std::string& text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 40) + "...";
  return text;
}
}  // namespace

json parse_json(std::string_view text, const std::string& what, int max_depth) {
  std::vector<std::set<std::string>> keys;  // of every open object
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    SPECMOE_CHECK(depth <= max_depth, what, ": nested deeper than ", max_depth, " levels");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      SPECMOE_CHECK(printable(key), what, ": a key has control characters");
      SPECMOE_CHECK(keys.back().insert(key).second, what, ": key '", key, "' appears twice");
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), check);
  } catch (const json::exception& error) {
    std::string reason = error.what();
    if (const auto cut = reason.find("; last read"); cut != std::string::npos) reason.resize(cut);
    fail(what, ": not valid JSON (", reason, ")");
  }
}

ConfigReader::ConfigReader(std::shared_ptr<const json> node, std::string what, std::string prefix)
    : node_(std::move(node)), what_(std::move(what)), prefix_(std::move(prefix)) {}

ConfigReader ConfigReader::parse(std::string_view text, const std::string& what) {
  auto node = std::make_shared<const json>(parse_json(text, what));
  SPECMOE_CHECK(node->is_object(), what, ": expected a JSON object, got ", shown(*node));
  return {std::move(node), what, ""};
}

ConfigReader ConfigReader::read(const std::string& path) {
  const MappedFile file(path);
  SPECMOE_CHECK(file.size() <= kMaxConfigBytes, path, ": ", file.size(), " bytes are too many for a configuration");
  return parse({reinterpret_cast<const char*>(file.data()), file.size()}, path);
}

const json* ConfigReader::find(const std::string& key) const {
  const auto found = node_->find(key);
  return found == node_->end() ? nullptr : &*found;
}

bool ConfigReader::contains(const std::string& key) const { return find(key) != nullptr; }

bool ConfigReader::has(const std::string& key) const {
  const json* value = find(key);
  return value != nullptr && !value->is_null();
}

std::int64_t ConfigReader::integer(const std::string& key, std::int64_t absent, std::int64_t low,
                                   std::int64_t high) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  // An unsigned number above int64 is out of any range we ask for.
  const bool fits =
      value->is_number_integer() &&
      (!value->is_number_unsigned() ||
       value->get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  SPECMOE_CHECK(fits && value->get<std::int64_t>() >= low && value->get<std::int64_t>() <= high, where(key),
                " must be an integer from ", low, " to ", high, ", got ", shown(*value));
  return value->get<std::int64_t>();
}

double ConfigReader::number(const std::string& key, double absent, double low) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  SPECMOE_CHECK(value->is_number(), where(key), " must be a number, got ", shown(*value));
  const double number = value->get<double>();
  SPECMOE_CHECK(std::isfinite(number) && number > low, where(key), " must be a finite number above ", low, ", got ",
                shown(*value));
  return number;
}

bool ConfigReader::boolean(const std::string& key, bool absent) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  if (value->is_boolean()) return value->get<bool>();
  SPECMOE_CHECK(value->is_number_integer(), where(key), " must be true or false, got ", shown(*value));
  return *value != 0;
}

std::string ConfigReader::text(const std::string& key, const std::string& absent) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  SPECMOE_CHECK(value->is_string() && printable(value->get<std::string>()), where(key),
                " must be a string without control characters, got ", shown(*value));
  return value->get<std::string>();
}

std::vector<TokenId> ConfigReader::tokens(const std::string& key) const {
  std::vector<TokenId> ids;
  if (!has(key)) return ids;
  const json& value = *find(key);
  const auto add = [&](const json& id) {
    SPECMOE_CHECK(id.is_number_integer() && id >= -1 && id <= std::numeric_limits<TokenId>::max(), where(key),
                  " must be a token id or a list of token ids, got ", shown(value));
    if (id >= 0) ids.push_back(id.get<TokenId>());  // -1 stands for none in some files
  };
  if (value.is_array()) {
    for (const json& id : value) add(id);
  } else {
    add(value);
  }
  return ids;
}

/// Null when absent or null.
const json* ConfigReader::list(const std::string& key) const {
  if (!has(key)) return nullptr;
  const json* value = find(key);
  SPECMOE_CHECK(value->is_array(), where(key), " must be a list, got ", shown(*value));
  return value;
}

std::optional<std::vector<std::int64_t>> ConfigReader::integers(const std::string& key, std::int64_t low,
                                                                std::int64_t high) const {
  const json* value = list(key);
  if (value == nullptr) return std::nullopt;
  std::vector<std::int64_t> all;
  for (const json& element : *value) {
    const bool whole = element.is_number_integer() || element.is_boolean();
    SPECMOE_CHECK(whole && element >= low && element <= high, where(key), " must be a list of integers from ", low,
                  " to ", high, ", got ", shown(*value));
    all.push_back(element.get<std::int64_t>());
  }
  return all;
}

std::optional<std::vector<double>> ConfigReader::numbers(const std::string& key) const {
  const json* value = list(key);
  if (value == nullptr) return std::nullopt;
  std::vector<double> all;
  for (const json& element : *value) {
    SPECMOE_CHECK(element.is_number() && std::isfinite(element.get<double>()), where(key),
                  " must be a list of finite numbers, got ", shown(*value));
    all.push_back(element.get<double>());
  }
  return all;
}

std::optional<std::vector<std::string>> ConfigReader::texts(const std::string& key) const {
  const json* value = list(key);
  if (value == nullptr) return std::nullopt;
  std::vector<std::string> all;
  for (const json& element : *value) {
    SPECMOE_CHECK(element.is_string() && printable(element.get<std::string>()), where(key),
                  " must be a list of strings without control characters, got ", shown(*value));
    all.push_back(element.get<std::string>());
  }
  return all;
}

std::vector<std::string> ConfigReader::keys() const {
  std::vector<std::string> names;
  for (const auto& [key, value] : node_->items()) names.push_back(key);
  return names;
}

std::optional<ConfigReader> ConfigReader::object(const std::string& key) const {
  if (!has(key)) return std::nullopt;
  const json* value = find(key);
  SPECMOE_CHECK(value->is_object(), where(key), " must be an object, got ", shown(*value));
  if (value->empty()) return std::nullopt;
  return ConfigReader(std::shared_ptr<const json>(node_, value), what_, prefix_ + key + ".");
}

}  // namespace specmoe::nn
