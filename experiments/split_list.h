#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace specmoe::cli {

/// Cuts `chain(gamma=4), expansion(2,2,1)` into its items: at commas and semicolons outside parentheses and quotes.
/// Spaces around items are dropped. Throws Error for an empty item; what is inside an item is the parser's to judge.
std::vector<std::string> split_list(std::string_view text);

}  // namespace specmoe::cli
