#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/packed_matrix.h"

namespace specmoe::cli {

enum class Command { kGenerate, kBench, kTune, kInspect, kConvert };

/// The flags of one command in force: given on the command line, else in --config, else their defaults.
///
/// A config file is a JSON object with a flag's name as key: {"target": "models/target", "max-new-tokens": 64,
/// "tree": ["chain(gamma=4)", "expansion(2,2)"], "ignore-eos": true}. What bench records as "config" is one.
class Settings {
 public:
  /// arguments  what follows the command's name
  /// throws     Error in the user's words for unknown flags, missing values, flags given twice
  static Settings parse(Command command, const std::vector<std::string>& arguments);

  /// The same from the text of a config file alone. where: how errors name it.
  static Settings from_config(Command command, const std::string& text, const std::string& where);

  /// Whether a value is there that is not a default.
  bool given(const std::string& flag) const;
  bool on(const std::string& flag) const;
  /// Empty when the flag has neither value nor default.
  std::string text(const std::string& flag) const;
  std::vector<std::string> texts(const std::string& flag) const;
  /// A list of items separated by commas or semicolons outside parentheses; empty when not given.
  std::vector<std::string> items(const std::string& flag) const;
  std::vector<std::int64_t> integers(const std::string& flag, std::int64_t least, std::int64_t most) const;
  std::int64_t integer(const std::string& flag, std::int64_t least, std::int64_t most) const;
  double real(const std::string& flag) const;

  /// Every flag in force as a JSON object that --config reads back; --config, --output, --cells and --cache, which
  /// change no result, are left out.
  std::string json() const;

 private:
  struct Entry {
    std::vector<std::string> values;
    bool defaulted = false;
  };
  void take_command_line(Command command, const std::vector<std::string>& arguments);
  void take_config(Command command, const std::string& text, const std::string& where);
  void take_defaults(Command command);

  std::map<std::string, Entry> entries_;
};

/// A number as the user wrote it. Throws Error naming the flag.
double parse_real(const std::string& flag, const std::string& text);

/// An element type that weights and caches can have. Throws Error naming the flag.
kernels::DType parse_dtype(const std::string& flag, const std::string& text);

}  // namespace specmoe::cli
