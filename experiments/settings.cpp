#include "experiments/settings.h"

#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/flags.h"
#include "experiments/split_list.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;
using Values = std::vector<std::string>;

const char* config_kind(FlagKind kind) {
  switch (kind) {
    case FlagKind::kText:
      return "a text";
    case FlagKind::kNumber:
      return "a number";
    case FlagKind::kItems:
      return "a text, a number or a list of them";
    case FlagKind::kRepeated:
      return "a text or a list of texts";
    case FlagKind::kSwitch:
      return "true or false";
  }
  return "";
}

po::options_description describe(Command command) {
  po::options_description all;
  for (const Flag& flag : all_flags()) {
    if (!flag.taken_by(command)) continue;
    if (flag.kind == FlagKind::kSwitch) {
      all.add_options()(flag.name, po::bool_switch());
    } else if (flag.kind == FlagKind::kRepeated) {
      all.add_options()(flag.name, po::value<Values>());
    } else {
      all.add_options()(flag.name, po::value<std::string>());
    }
  }
  return all;
}

/// Boost's complaints in the user's words.
po::parsed_options parse_command_line(Command command, const Values& arguments, const po::options_description& flags) {
  const std::string help = concat("; see specmoe ", command_name(command), " --help");
  namespace style = po::command_line_style;
  const int exact = style::unix_style & ~style::allow_guessing & ~style::allow_short;
  try {
    po::parsed_options parsed = po::command_line_parser(arguments).options(flags).style(exact).run();
    for (const po::option& option : parsed.options) {
      SPECMOE_CHECK(option.position_key < 0, "unexpected '", option.original_tokens.at(0),
                    "': every value follows its flag, and a text with spaces needs quotes", help);
    }
    return parsed;
  } catch (const po::unknown_option& error) {
    const std::string name = error.get_option_name().substr(error.get_option_name().find_first_not_of('-'));
    fail(command_name(command), " has no option --", name, spelling_hint(name, command), help);
  } catch (const po::invalid_command_line_syntax& error) {
    const bool extra = error.kind() == po::invalid_syntax::extra_parameter;
    fail(error.get_option_name(), extra ? " takes no value" : " needs a value", help);
  } catch (const po::error& error) {
    fail(error.what(), help);
  }
}

std::string scalar_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/// A config value as the strings that the command line would have given.
Values config_values(const Flag& flag, const Json& value, const std::string& where) {
  const auto scalar = [&](const Json& one) {
    return flag.kind == FlagKind::kNumber  ? one.is_number()
           : flag.kind == FlagKind::kItems ? one.is_number() || one.is_string()
                                           : one.is_string();
  };
  if (flag.kind == FlagKind::kSwitch) {
    SPECMOE_CHECK(value.is_boolean(), where, flag.name, " must be true or false, got ", value.dump());
    return value.get<bool>() ? Values{"true"} : Values{};
  }
  const bool list = value.is_array() && (flag.kind == FlagKind::kItems || flag.kind == FlagKind::kRepeated);
  Values values;
  for (const Json& one : list ? value : Json::array({value})) {
    SPECMOE_CHECK(scalar(one), where, flag.name, " must be ", config_kind(flag.kind), ", got ", one.dump());
    values.push_back(scalar_text(one));
  }
  if (flag.kind != FlagKind::kItems || values.empty()) return values;
  std::string joined = values[0];
  for (std::size_t i = 1; i < values.size(); ++i) joined += ";" + values[i];
  return {joined};
}

Json parse_config(const std::string& text, const std::string& where) {
  try {
    Json config = Json::parse(text, nullptr, true, /*ignore_comments=*/true);
    SPECMOE_CHECK(config.is_object(), where, " must hold one JSON object of flags");
    return config;
  } catch (const Json::parse_error& error) {
    fail(where, " is not valid JSON (at byte ", error.byte, ")");
  } catch (const Json::out_of_range&) {
    fail(where, " holds a number that is too large");
  }
}

std::string read_text(const std::string& path) {
  std::error_code error;
  SPECMOE_CHECK(!std::filesystem::is_directory(path, error), "--config: '", path, "' is a folder; give a JSON file");
  std::ifstream file(path, std::ios::binary);
  SPECMOE_CHECK(file, "--config: cannot read '", path, "'; give a JSON file of flags");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::int64_t parse_integer(const std::string& flag, const std::string& text, std::int64_t least, std::int64_t most) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  SPECMOE_CHECK(whole && number >= least && number <= most, "--", flag, ": expected a whole number from ", least,
                " to ", most, ", got '", text, "'");
  return number;
}

Json number_json(const std::string& flag, const std::string& text) {
  const double number = parse_real(flag, text);
  std::int64_t whole = 0;  // JSON knows no number such as 007
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  return error == std::errc() && end == text.data() + text.size() ? Json(whole) : Json(number);
}

}  // namespace

Settings Settings::parse(Command command, const Values& arguments) {
  Settings settings;
  settings.take_command_line(command, arguments);
  if (settings.given("config")) {
    const std::string path = settings.text("config");
    settings.take_config(command, read_text(path), "--config: '" + path + "'");
  }
  settings.take_defaults(command);
  return settings;
}

Settings Settings::from_config(Command command, const std::string& text, const std::string& where) {
  Settings settings;
  settings.take_config(command, text, where);
  settings.take_defaults(command);
  return settings;
}

void Settings::take_command_line(Command command, const Values& arguments) {
  const po::options_description flags = describe(command);
  po::variables_map given;
  try {
    po::store(parse_command_line(command, arguments, flags), given);
  } catch (const po::multiple_occurrences& error) {
    fail(error.get_option_name(), " was given more than once");
  }
  for (const Flag& flag : all_flags()) {
    if (!given.count(flag.name)) continue;
    const po::variable_value& value = given[flag.name];
    if (flag.kind == FlagKind::kSwitch) {
      if (value.as<bool>()) entries_[flag.name] = {{"true"}, false};
    } else if (flag.kind == FlagKind::kRepeated) {
      entries_[flag.name] = {value.as<Values>(), false};
    } else {
      entries_[flag.name] = {{value.as<std::string>()}, false};
    }
  }
}

void Settings::take_config(Command command, const std::string& text, const std::string& where) {
  const Json config = parse_config(text, where);
  for (const auto& [name, value] : config.items()) {
    const Flag* flag = find_flag(name);
    SPECMOE_CHECK(flag != nullptr && flag->taken_by(command) && name != "config", where, ": ", command_name(command),
                  " has no option '", name, "'", spelling_hint(name, command));
    SPECMOE_CHECK(!value.is_array() || !value.empty(), where, ": ", name,
                  ": the list is empty; give one item or more, or leave it out");
    const Values values = config_values(*flag, value, where + ": ");
    if (!values.empty()) entries_.try_emplace(name, Entry{values, false});
  }
}

void Settings::take_defaults(Command command) {
  for (const Flag& flag : all_flags()) {
    if (!flag.taken_by(command)) continue;
    // An empty value is a variable of the shell that was not set: going on without the flag would lose what it asks
    // for.
    SPECMOE_CHECK(flag.kind != FlagKind::kText || !given(flag.name) || !text(flag.name).empty(), "--", flag.name,
                  " is empty: give ", flag.placeholder, ", or leave it out");
    if (flag.fallback != nullptr) entries_.try_emplace(flag.name, Entry{{flag.fallback}, true});
  }
}

bool Settings::given(const std::string& flag) const {
  const auto found = entries_.find(flag);
  return found != entries_.end() && !found->second.defaulted;
}

bool Settings::on(const std::string& flag) const { return entries_.contains(flag); }

std::string Settings::text(const std::string& flag) const {
  const auto found = entries_.find(flag);
  return found == entries_.end() ? "" : found->second.values.at(0);
}

Values Settings::texts(const std::string& flag) const {
  const auto found = entries_.find(flag);
  return found == entries_.end() ? Values{} : found->second.values;
}

Values Settings::items(const std::string& flag) const {
  const auto found = entries_.find(flag);
  if (found == entries_.end()) return {};
  try {
    return split_list(found->second.values.at(0));
  } catch (const Error& error) {
    fail("--", flag, ": ", error.what());
  }
}

std::int64_t Settings::integer(const std::string& flag, std::int64_t least, std::int64_t most) const {
  return parse_integer(flag, text(flag), least, most);
}

std::vector<std::int64_t> Settings::integers(const std::string& flag, std::int64_t least, std::int64_t most) const {
  std::vector<std::int64_t> numbers;
  for (const std::string& item : items(flag)) numbers.push_back(parse_integer(flag, item, least, most));
  return numbers;
}

double Settings::real(const std::string& flag) const { return parse_real(flag, text(flag)); }

std::string Settings::json() const {
  Json all = Json::object();
  for (const Flag& flag : all_flags()) {
    const std::string name = flag.name;
    const bool of_place = name == "config" || name == "output" || name == "cells" || name == "cache";
    if (!entries_.contains(name) || of_place) continue;
    const Values& values = entries_.at(name).values;
    switch (flag.kind) {
      case FlagKind::kText:
        all[name] = values[0];
        break;
      case FlagKind::kNumber:
        all[name] = number_json(name, values[0]);
        break;
      case FlagKind::kItems:
        all[name] = items(name);
        break;
      case FlagKind::kRepeated:
        all[name] = values;
        break;
      case FlagKind::kSwitch:
        all[name] = true;
        break;
    }
  }
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

double parse_real(const std::string& flag, const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size() && std::isfinite(number);
  SPECMOE_CHECK(whole, "--", flag, ": expected a number, got '", text, "'");
  return number;
}

kernels::DType parse_dtype(const std::string& flag, const std::string& text) {
  for (const kernels::DType dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16, kernels::DType::kInt8}) {
    if (kernels::dtype_name(dtype) == text) return dtype;
  }
  fail("--", flag, ": expected float32, bfloat16 or int8, got '", text, "'");
}

}  // namespace specmoe::cli
