#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace specmoe {

/// The parameters of one plug-in spec such as `typical(epsilon=0.3,delta=0.09)` or `expansion(2,2,1)`.
///
/// A plug-in's constructor asks for each parameter once, with its default: that declares it, so the accepted names, the
/// defaults and the canonical spelling are known from one place. Positional values go to parameters in that order.
/// Constructors only read parameters; files and models are opened later, when the engine is assembled.
class Params {
 public:
  /// Parses `name(a, key=b, nested(c=d))`. Throws Error with the offending position.
  static Params parse(std::string_view spec);
  /// Parameters that answer every question with its default: how `specmoe list` learns what a plug-in accepts.
  static Params describing(std::string name);

  const std::string& name() const { return name_; }

  int integer(std::string_view key, int fallback, std::string_view meaning);
  double real(std::string_view key, double fallback, std::string_view meaning);
  bool boolean(std::string_view key, bool fallback, std::string_view meaning);
  std::string text(std::string_view key, std::string_view fallback, std::string_view meaning);
  /// No default: a missing one is an error (but empty while describing).
  std::string required_text(std::string_view key, std::string_view meaning);
  /// All remaining positional values, such as the widths of `expansion(2,2,1)`.
  std::vector<std::int64_t> integers(std::string_view key, std::vector<std::int64_t> fallback,
                                     std::string_view meaning);
  std::vector<std::string> texts(std::string_view key, std::string_view meaning);

  /// Throws Error listing the accepted parameters when a value was given that no question took.
  void finish() const;
  /// The spec with every parameter written out by name, in declaration order.
  std::string canonical() const;

  struct Declared {
    std::string key;
    std::string value;  // what is in force; the default while describing
    std::string meaning;
    bool positional_list = false;
  };
  const std::vector<Declared>& declared() const { return declared_; }

 private:
  struct Given {
    std::string key;  // empty: positional
    std::string value;
    bool taken = false;
  };
  Given* take(std::string_view key);
  void declare(std::string_view key, std::string value, std::string_view meaning, bool list = false);

  std::string name_;
  bool describing_ = false;
  std::vector<Given> given_;
  std::vector<Declared> declared_;
};

}  // namespace specmoe
