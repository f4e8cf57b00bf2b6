#include "core/nn/gguf_metadata.h"

#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;

namespace {

const Architecture& architecture_of(const GgufFile& file) {
  const std::string_view* name = file.text("general.architecture");
  SPECMOE_CHECK(name != nullptr, file.path(), ": metadata has no general.architecture; not a model?");
  std::string known;
  for (const Architecture& architecture : gguf_architectures()) {
    if (*name == architecture.name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  fail(file.path(), ": architecture '", std::string(name->substr(0, 40)), "' is not supported; known: ", known);
}

}  // namespace

GgufMetadata::GgufMetadata(const GgufFile& file) : file_(file), architecture_(architecture_of(file)) {}

const GgufValue* GgufMetadata::find(const char* name) const {
  const auto found = file_.metadata().find(key(name));
  return found == file_.metadata().end() ? nullptr : &found->second;
}

std::int64_t GgufMetadata::integer(const char* name, std::int64_t absent) const {
  const std::int64_t* value = file_.integer(key(name));
  return value == nullptr ? absent : *value;
}

std::int64_t GgufMetadata::need(const char* name) const {
  const std::int64_t* value = file_.integer(key(name));
  SPECMOE_CHECK(value != nullptr, file_.path(), ": metadata has no ", key(name));
  return *value;
}

void GgufMetadata::copy(const std::vector<KeyName>& names, json& config) const {
  for (const KeyName& name : names) {
    const GgufValue* value = find(name.gguf);
    if (value != nullptr) config[name.config] = std::visit([](const auto& held) { return json(held); }, *value);
  }
}

}  // namespace specmoe::nn
