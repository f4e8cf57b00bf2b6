#include "experiments/flags.h"

#include <algorithm>
#include <array>

namespace specmoe::cli {
namespace {

constexpr const char* kModels = "Models";
constexpr const char* kMethod = "Method (bench: lists make a grid)";
constexpr const char* kText = "Text";
constexpr const char* kRun = "Run";

constexpr FlagKind kOne = FlagKind::kText;
constexpr FlagKind kNumber = FlagKind::kNumber;
constexpr FlagKind kItems = FlagKind::kItems;
constexpr FlagKind kRepeated = FlagKind::kRepeated;
constexpr FlagKind kSwitch = FlagKind::kSwitch;

constexpr unsigned kGenerate = command_bit(Command::kGenerate);
constexpr unsigned kBench = command_bit(Command::kBench);
constexpr unsigned kTune = command_bit(Command::kTune);
constexpr unsigned kDecoding = kGenerate | kBench | kTune;
constexpr unsigned kConvert = command_bit(Command::kConvert);
constexpr unsigned kModel = kDecoding | command_bit(Command::kInspect);
constexpr unsigned kAll = kModel | kConvert;

constexpr std::array kFlags = {
    Flag{"target", kOne, kAll, "FOLDER", nullptr, kModels,
         "checkpoint whose text is wanted (a Hugging Face folder or a GGUF file)"},
    Flag{"drafter", kItems, kModel, "SPEC", nullptr, kModels,
         "cheap proposer of tokens, such as 'independent(path=FOLDER)' or ngram; without one: plain decoding"},
    Flag{"dtype", kItems, kAll, "TYPE", "bfloat16", kModels, "element type of the weights: float32, bfloat16 or int8"},
    Flag{"kv-dtype", kOne, kModel, "TYPE", "float32", kModels,
         "element type of the cached keys and values: float32, bfloat16 or int8 (a scale per row and head)"},
    Flag{"device", kOne, kModel, "NAME", "cpu", kModels, "where to compute: cpu, cuda or cuda:1"},
    Flag{"device-loop", kSwitch, kGenerate | kBench, "", nullptr, kModels,
         "on a device, let whole steps follow one another without the host, as far as there are such steps"},
    Flag{"device-switch", kSwitch, kGenerate | kBench, "", nullptr, kModels,
         "on a device, let whole steps choose the size of the target's pass by the tree that they have grown"},
    Flag{"fast-prefill", kSwitch, kDecoding, "", nullptr, kModels,
         "on a device, put each 256 tokens of a prompt through cuBLASLt: faster, with other last bits than one by one"},
    Flag{"threads", kNumber, kAll, "N", "0", kModels, "computing threads; 0: one per usable core"},
    Flag{"cache", kOne, kDecoding, "DIR", nullptr, kModels,
         "keep packed weights in this folder, and take them from there the next time"},
    Flag{"out", kOne, kConvert, "DIR", nullptr, kModels, "folder to be made for the new checkpoint"},
    Flag{"memory-cap", kOne, kConvert, "SIZE", nullptr, kModels,
         "refuse at once what would take more memory than this, such as 800MB or 12.5GB"},
    Flag{"tree", kItems, kDecoding, "SPEC", nullptr, kMethod,
         "shape of the draft, such as 'chain(gamma=4)' (the default) or 'expansion(2,2,1)'"},
    Flag{"accept", kItems, kDecoding, "SPEC", nullptr, kMethod,
         "acceptance policy; default: token on chains, naive on trees"},
    Flag{"temperature", kItems, kDecoding, "X", "0", kMethod, "0: greedy; above: sample"},
    Flag{"top-k", kNumber, kDecoding, "K", "0", kMethod, "sample among the K likeliest tokens; 0: all"},
    Flag{"top-p", kNumber, kDecoding, "P", "1", kMethod, "sample among the likeliest tokens that hold mass P"},
    Flag{"min-p", kNumber, kDecoding, "M", "0", kMethod,
         "sample among the tokens at least M times as likely as the likeliest"},
    Flag{"repetition-penalty", kNumber, kDecoding, "R", "1", kMethod,
         "divide positive logits of tokens in prompt or output by R, and multiply negative ones; 1: none"},
    Flag{"presence-penalty", kNumber, kDecoding, "X", "0", kMethod,
         "subtract X from the logits of tokens in the output"},
    Flag{"frequency-penalty", kNumber, kDecoding, "X", "0", kMethod,
         "subtract X from the logits of tokens in the output as often as they occur there"},
    Flag{"seed", kNumber, kDecoding, "N", "0", kMethod, "the same seed gives the same text"},
    Flag{"allow-lossy", kSwitch, kDecoding, "", nullptr, kMethod,
         "allow policies that change the target's distribution"},
    Flag{"prompt", kRepeated, kDecoding | kConvert, "TEXT", nullptr, kText, "text to continue; may be repeated"},
    Flag{"prompts", kOne, kDecoding | kConvert, "FILE", nullptr, kText,
         "prompts: JSONL in the Spec-Bench question format, or one text a line"},
    Flag{"chat", kSwitch, kDecoding | kConvert, "", nullptr, kText,
         "put each text, a question, into the checkpoint's chat template (run by Python: SPECMOE_PYTHON or python3)"},
    Flag{"max-new-tokens", kNumber, kDecoding | kConvert, "N", "128", kText, "most tokens to emit per prompt"},
    Flag{"stop", kRepeated, kDecoding, "TEXT", nullptr, kText, "end a text before this string; may be repeated"},
    Flag{"ignore-eos", kSwitch, kDecoding, "", nullptr, kText, "go on past the checkpoint's end-of-text token"},
    Flag{"category", kItems, kBench, "NAME", "all", kText,
         "prompt classes, each measured apart; each: every class of the file; all: the whole file"},
    Flag{"batch", kItems, kModel, "B", "1", kRun, "most prompts decoded at a time"},
    Flag{"repeat", kNumber, kBench | kTune, "R", "1", kRun,
         "rounds per prompt; one round runs plain, speculative, speculative, plain"},
    Flag{"mark", kOne, kGenerate | kBench, "STYLE", "auto", kRun,
         "how accepted draft tokens are marked: ansi, brackets, none; auto: ansi on a terminal, else none"},
    Flag{"show-text", kSwitch, kBench, "", nullptr, kRun, "print the texts before the table"},
    Flag{"output", kOne, kDecoding, "FILE.jsonl", nullptr, kRun,
         "also write one JSON object per request (bench, tune: and summaries at the end)"},
    Flag{"cells", kOne, kBench, "FILE.jsonl", nullptr, kRun,
         "append one line per cell to this file; cells that are there already are not measured again"},
    Flag{"config", kOne, kAll, "FILE.json", nullptr, kRun,
         "flags from a JSON object, by the same names; the command line wins"},
    Flag{"quiet", kSwitch, kAll, "", nullptr, kRun, "no progress on stderr"},
};

/// Levenshtein distance.
int edits(const std::string& from, const std::string& to) {
  std::vector<int> row(to.size() + 1);
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= from.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= to.size(); ++j) {
      const int replaced = diagonal + (from[i - 1] == to[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

std::string group_help(Command command, const char* group) {
  constexpr std::size_t kColumn = 26;
  std::string text;
  for (const Flag& flag : all_flags()) {
    if (!flag.taken_by(command) || std::string_view(flag.group) != group) continue;
    std::string left = std::string("  --") + flag.name + (*flag.placeholder ? " " : "") + flag.placeholder;
    left.resize(std::max(kColumn, left.size() + 2), ' ');
    text += left + flag.meaning;
    if (flag.fallback != nullptr) text += std::string(" [") + flag.fallback + "]";
    text += "\n";
  }
  return text;
}

}  // namespace

std::span<const Flag> all_flags() { return kFlags; }

const Flag* find_flag(const std::string& name) {
  for (const Flag& flag : kFlags) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

std::string spelling_hint(const std::string& name, Command command) {
  int best = 3;  // a flag further away than two edits is no misspelling
  const char* nearest = nullptr;
  for (const Flag& flag : kFlags) {
    const int distance = flag.taken_by(command) ? edits(name, flag.name) : best;
    if (distance < best) {
      best = distance;
      nearest = flag.name;
    }
  }
  return nearest == nullptr ? "" : std::string(" (did you mean --") + nearest + "?)";
}

const char* command_name(Command command) {
  switch (command) {
    case Command::kGenerate:
      return "generate";
    case Command::kBench:
      return "bench";
    case Command::kTune:
      return "tune";
    case Command::kInspect:
      return "inspect";
    case Command::kConvert:
      return "convert";
  }
  return "";
}

std::string help_text(Command command) {
  std::string text;
  std::vector<std::string> done;
  for (const Flag& flag : all_flags()) {
    const std::string lines = group_help(command, flag.group);
    if (lines.empty() || std::find(done.begin(), done.end(), flag.group) != done.end()) continue;
    done.push_back(flag.group);
    text += "\n" + done.back() + ":\n" + lines;
  }
  return text;
}

}  // namespace specmoe::cli
