#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace specmoe::nn {

/// The Jinja template that turns a conversation into a prompt, and the tokens that it may spell out. Rendering is the
/// Python package's work (specmoe.chat): a template is a program.
struct ChatTemplate {
  std::string text;
  std::string bos_token;  // empty: the model has none
  std::string eos_token;
};

/// Of a Hugging Face folder (chat_template.jinja, or chat_template in tokenizer_config.json) or a GGUF file; nothing
/// when the model has none. Throws Error for files that are damaged.
std::optional<ChatTemplate> find_chat_template(const std::filesystem::path& model);

}  // namespace specmoe::nn
