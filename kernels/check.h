#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace specmoe {

/// What every part of specmoe throws. The text is one line for the user: what was wanted, what came, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string concat(Parts&&... parts) {
  std::ostringstream text;
  (text << ... << std::forward<Parts>(parts));
  return text.str();
}

template <class... Parts>
[[noreturn]] void fail(Parts&&... parts) {
  throw Error(concat(std::forward<Parts>(parts)...));
}

}  // namespace specmoe

/// SPECMOE_CHECK(gamma >= 1, "gamma must be at least 1, got ", gamma)
#define SPECMOE_CHECK(condition, ...) \
  do {                                \
    if (!(condition)) [[unlikely]] {  \
      ::specmoe::fail(__VA_ARGS__);   \
    }                                 \
  } while (false)
