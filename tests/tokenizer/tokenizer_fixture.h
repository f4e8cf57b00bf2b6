#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/nn/tokenizer.h"

namespace specmoe::nn::testing {

inline std::filesystem::path fixture_folder() {
  return std::filesystem::path(SPECMOE_TEST_DATA) / "golden" / "tokenizer";
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

inline nlohmann::json read_fixture(const std::string& name) {
  return nlohmann::json::parse(read_text(fixture_folder() / name));
}

inline std::shared_ptr<const Tokenizer> load_fixture(const std::string& style) {
  return Tokenizer::from_file(fixture_folder() / (style + ".json"));
}

inline const std::vector<std::string>& fixture_styles() {
  static const std::vector<std::string> styles{"gpt2",      "llama3",    "qwen2",         "smollm2", "o200k",
                                               "deepseek2", "deepseek3", "llama2_legacy", "llama2",  "mixtral",
                                               "gemma",     "odd",       "odd_pieces"};
  return styles;
}

/// The texts of texts.json, the repeated ones written out.
inline std::vector<std::string> fixture_texts() {
  std::vector<std::string> texts;
  const nlohmann::json fixture = read_fixture("texts.json");
  for (const auto& text : fixture["texts"]) {
    if (text.is_string()) {
      texts.push_back(text);
      continue;
    }
    std::string repeated;
    for (int i = 0; i < text[1].get<int>(); ++i) repeated += text[0].get<std::string>();
    texts.push_back(std::move(repeated));
  }
  return texts;
}

}  // namespace specmoe::nn::testing
