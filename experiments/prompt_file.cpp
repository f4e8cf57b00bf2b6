#include "experiments/prompt_file.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "kernels/check.h"

namespace specmoe::cli {
namespace {

using Json = nlohmann::json;

/// Where we are in the file, for messages.
std::string place(const std::filesystem::path& path, int line) {
  return "--prompts: " + path.string() + ", line " + std::to_string(line) + ": ";
}

std::string id_of(const Json& row, int line, const std::string& where) {
  if (!row.contains("question_id")) return std::to_string(line);
  const Json& id = row["question_id"];
  SPECMOE_CHECK(id.is_string() || id.is_number_integer(), where, "question_id must be a number or a text, got ",
                id.dump(-1, ' ', true, Json::error_handler_t::replace));
  return id.is_string() ? id.get<std::string>() : id.dump();
}

Prompt question(const std::string& text, int line, const std::string& where) {
  const Json row = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  SPECMOE_CHECK(row.is_object(), where,
                "expected a JSON object such as {\"question_id\": 1, \"turns\": [\"...\"]}, one a line");
  SPECMOE_CHECK(row.contains("turns") && row["turns"].is_array() && !row["turns"].empty(), where,
                "expected \"turns\", a list of one text or more (the Spec-Bench question format)");
  for (const Json& turn : row["turns"]) SPECMOE_CHECK(turn.is_string(), where, "every turn must be a text");
  Prompt prompt;
  prompt.id = id_of(row, line, where);
  if (row.contains("category")) {
    SPECMOE_CHECK(row["category"].is_string(), where, "category must be a text");
    prompt.category = row["category"].get<std::string>();
  }
  prompt.turns = row["turns"].get<std::vector<std::string>>();
  prompt.text = prompt.turns.front();
  if (row.contains("rendered")) {
    SPECMOE_CHECK(row["rendered"].is_boolean(), where, "rendered must be true or false");
    prompt.rendered = row["rendered"].get<bool>();
  }
  return prompt;
}

}  // namespace

std::vector<Prompt> read_prompts(const std::filesystem::path& path) {
  std::error_code error;
  SPECMOE_CHECK(!std::filesystem::is_directory(path, error), "--prompts: '", path.string(),
                "' is a folder; give a file");
  std::ifstream file(path, std::ios::binary);
  SPECMOE_CHECK(file, "--prompts: cannot read '", path.string(), "'; give a JSONL file of questions or a text file");
  std::vector<Prompt> prompts;
  std::set<std::string> seen;
  const std::string extension = path.extension().string();
  bool json = extension == ".jsonl" || extension == ".json";
  std::string text;
  for (int line = 1; std::getline(file, text); ++line) {
    if (!text.empty() && text.back() == '\r') text.pop_back();
    if (line == 1 && text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);  // a byte order mark
    if (text.find_first_not_of(" \t") == std::string::npos) continue;
    if (prompts.empty()) json |= text[text.find_first_not_of(" \t")] == '{';
    const std::string where = place(path, line);
    if (json) {
      prompts.push_back(question(text, line, where));
    } else {
      prompts.push_back({std::to_string(line), "", text, {text}, {}});
    }
    prompts.back().number = static_cast<int>(prompts.size()) - 1;
    SPECMOE_CHECK(seen.insert(prompts.back().id).second, where, "question_id ", prompts.back().id, " appears twice");
  }
  SPECMOE_CHECK(!prompts.empty(), "--prompts: '", path.string(), "' holds no prompt");
  return prompts;
}

}  // namespace specmoe::cli
