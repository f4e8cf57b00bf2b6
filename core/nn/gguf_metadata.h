#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/nn/gguf.h"

namespace specmoe::nn {

/// A key of GGUF, without the architecture's prefix, and what config.json calls the same thing.
struct KeyName {
  const char* gguf;
  const char* config;
};

class GgufMetadata;

/// What GGUF calls an architecture, and what it is in Hugging Face words.
struct Architecture {
  const char* name;
  const char* model_type;
  std::vector<KeyName> keys = {};
  bool permuted = false;  // rows of query and key are reordered for rotations of neighbouring elements
  nlohmann::json fixed = nlohmann::json::object();  // what every model of the architecture has, and no key says
  /// What takes more than copying a key; last, when everything else is in the configuration.
  void (*complete)(const GgufMetadata& metadata, nlohmann::json& config) = nullptr;
};

const std::vector<Architecture>& gguf_architectures();

/// The metadata of a model: llama.block_count is "block_count" here.
class GgufMetadata {
 public:
  /// Throws Error when the architecture is missing or not supported.
  explicit GgufMetadata(const GgufFile& file);

  const GgufFile& file() const { return file_; }
  const Architecture& architecture() const { return architecture_; }
  std::string key(const char* name) const { return std::string(architecture_.name) + "." + name; }
  const GgufValue* find(const char* name) const;  // null when absent
  std::int64_t integer(const char* name, std::int64_t absent) const;
  std::int64_t need(const char* name) const;  // throws Error when absent
  /// Puts the keys that are there into `config`.
  void copy(const std::vector<KeyName>& names, nlohmann::json& config) const;

 private:
  const GgufFile& file_;
  const Architecture& architecture_;
};

}  // namespace specmoe::nn
