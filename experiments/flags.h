#pragma once

#include <span>
#include <string>
#include <vector>

#include "experiments/settings.h"

namespace specmoe::cli {

/// kItems flags hold a list in one value where the command takes several (bench's grid).
enum class FlagKind { kText, kNumber, kItems, kRepeated, kSwitch };

constexpr unsigned command_bit(Command command) { return 1U << static_cast<unsigned>(command); }

/// One flag of the program: the single place where its name, default and meaning are written.
struct Flag {
  const char* name;
  FlagKind kind;
  unsigned commands;  // command_bit() of those that take it
  const char* placeholder;
  const char* fallback;  // nullptr: none
  const char* group;     // heading in --help
  const char* meaning;

  bool taken_by(Command command) const { return (commands & command_bit(command)) != 0; }
};

std::span<const Flag> all_flags();
/// Null when there is no such flag.
const Flag* find_flag(const std::string& name);
/// ` (did you mean --tree?)` when a flag of the command is spelled alike, else nothing.
std::string spelling_hint(const std::string& name, Command command);

const char* command_name(Command command);
/// What --help prints about a command's flags.
std::string help_text(Command command);

}  // namespace specmoe::cli
