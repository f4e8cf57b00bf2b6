#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/types.h"

namespace specmoe::nn {

/// Typed access to a JSON object of a checkpoint. A key that is absent takes the given default; one of the wrong type
/// or out of range throws Error with the file and the key.
class ConfigReader {
 public:
  /// what  names the source in errors
  static ConfigReader parse(std::string_view text, const std::string& what);
  static ConfigReader read(const std::string& path);

  bool contains(const std::string& key) const;  // null counts
  bool has(const std::string& key) const;       // null does not
  std::int64_t integer(const std::string& key, std::int64_t absent, std::int64_t low, std::int64_t high) const;
  /// Finite and above `low`.
  double number(const std::string& key, double absent, double low = std::numeric_limits<double>::lowest()) const;
  bool boolean(const std::string& key, bool absent) const;  // integers count, as in Python
  std::string text(const std::string& key, const std::string& absent) const;
  /// One integer or a list of them; empty when absent or null.
  std::vector<TokenId> tokens(const std::string& key) const;
  /// A list; nothing when absent or null. Integers and booleans must lie in [low, high], numbers be finite.
  std::optional<std::vector<std::int64_t>> integers(const std::string& key, std::int64_t low, std::int64_t high) const;
  std::optional<std::vector<double>> numbers(const std::string& key) const;
  std::optional<std::vector<std::string>> texts(const std::string& key) const;
  std::vector<std::string> keys() const;
  /// Nothing when absent, null or empty.
  std::optional<ConfigReader> object(const std::string& key) const;

  /// "DIR/config.json: rope_scaling.factor"
  std::string where(const std::string& key) const { return what_ + ": " + prefix_ + key; }

 private:
  ConfigReader(std::shared_ptr<const nlohmann::json> node, std::string what, std::string prefix);
  const nlohmann::json* find(const std::string& key) const;
  const nlohmann::json* list(const std::string& key) const;

  std::shared_ptr<const nlohmann::json> node_;
  std::string what_;
  std::string prefix_;
};

/// Parses untrusted JSON: at most `max_depth` levels, no key twice in an object, none with control characters. Throws
/// Error.
nlohmann::json parse_json(std::string_view text, const std::string& what, int max_depth = 64);

}  // namespace specmoe::nn
