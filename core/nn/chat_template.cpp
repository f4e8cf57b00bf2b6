#include "core/nn/chat_template.h"

#include <nlohmann/json.hpp>

#include "core/nn/config_reader.h"
#include "core/nn/gguf_model.h"
#include "core/nn/mapped_file.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::string read_text(const fs::path& path) {
  const MappedFile file(path.string());
  constexpr std::size_t kMostBytes = std::size_t{64} << 20;
  SPECMOE_CHECK(file.size() <= kMostBytes, path.string(), ": ", file.size(), " bytes are too many");
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

/// A token is written as its text or as an object with its content.
std::string token_text(const json& settings, const char* key) {
  const json value = settings.value(key, json());
  if (value.is_object() && value.contains("content") && value["content"].is_string()) return value["content"];
  return value.is_string() ? value.get<std::string>() : "";
}

/// One template, or a list of them by name, of which "default" is for conversations.
std::string template_text(const json& settings, const std::string& where) {
  const json value = settings.value("chat_template", json());
  if (value.is_null() || value.is_string()) return value.is_null() ? "" : value.get<std::string>();
  for (const json& choice : value.is_array() ? value : json::array()) {
    if (choice.is_object() && choice.value("name", json()) == "default" && choice.contains("template") &&
        choice["template"].is_string()) {
      return choice["template"];
    }
  }
  fail(where, ": chat_template must be a string, or a list with one named default");
}

std::optional<ChatTemplate> from_gguf(const GgufFile& file) {
  const std::string_view* text = file.text("tokenizer.chat_template");
  if (text == nullptr) return std::nullopt;
  const auto token = [&](const char* key) -> std::string {
    const std::int64_t* id = file.integer(key);
    const auto* tokens = file.texts("tokenizer.ggml.tokens");
    const bool known = id != nullptr && tokens != nullptr && *id >= 0 && *id < std::int64_t(tokens->size());
    return known ? std::string((*tokens)[static_cast<std::size_t>(*id)]) : "";
  };
  return ChatTemplate{std::string(*text), token("tokenizer.ggml.bos_token_id"), token("tokenizer.ggml.eos_token_id")};
}

}  // namespace

std::optional<ChatTemplate> find_chat_template(const fs::path& model) {
  if (const auto gguf = find_gguf(model)) return from_gguf(GgufFile(*gguf));
  const fs::path config = model / "tokenizer_config.json";
  const fs::path jinja = model / "chat_template.jinja";
  std::error_code ignored;
  json settings = json::object();
  if (fs::exists(config, ignored)) settings = parse_json(read_text(config), config.string());
  SPECMOE_CHECK(settings.is_object(), config.string(), ": expected a JSON object");
  const std::string text = fs::exists(jinja, ignored) ? read_text(jinja) : template_text(settings, config.string());
  if (text.empty()) return std::nullopt;
  return ChatTemplate{text, token_text(settings, "bos_token"), token_text(settings, "eos_token")};
}

}  // namespace specmoe::nn
