#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace specmoe::cli {

/// What a text is continued from.
struct Prompt {
  std::string id;
  std::string category;
  std::string text;
  std::vector<std::string> turns;    // of the question, as they were written; `text` asks the first without answer
  std::vector<std::string> answers;  // to the turns before
  bool rendered = false;             // by a chat template, which wrote the begin token itself
  int number = 0;                    // place among the prompts, from 0
};

/// Reads prompts: rows of the Spec-Bench question format, {"question_id": …, "category": …, "turns": [text, …]}, one a
/// line, with "rendered": true when a chat template has made the text; or, when the file is no .jsonl or .json and its
/// first line does not begin with '{', plain text, one prompt a line, numbered from 1. Empty lines are skipped. Throws
/// Error naming the line.
std::vector<Prompt> read_prompts(const std::filesystem::path& path);

}  // namespace specmoe::cli
