#include "experiments/split_list.h"

#include "kernels/check.h"

namespace specmoe::cli {
namespace {

std::string trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kSpace) - first + 1));
}

}  // namespace

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> items;
  int depth = 0;
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ',';
    if (i < text.size()) {
      if (c == '"') quoted = !quoted;
      if (!quoted && c == '(') ++depth;
      if (!quoted && c == ')') --depth;
      if (quoted || depth > 0 || (c != ',' && c != ';')) continue;
    }
    items.push_back(trimmed(text.substr(begin, i - begin)));
    SPECMOE_CHECK(!items.back().empty(), "'", text, "': item ", items.size(), " of the list is empty");
    begin = i + 1;
  }
  return items;
}

}  // namespace specmoe::cli
