#pragma once

#include <string>
#include <vector>

namespace specmoe::cli {

/// `specmoe prove`: whether a policy keeps the target's distribution, by enumeration; with --all, the whole matrix of
/// policies, draft laws and trees, and every wrong rule of the zoo. arguments: what follows the command's name.
///
/// returns  0 when lossless, or when everything is as labelled; 1 when biased, or when a label is wrong
int run_prove(const std::vector<std::string>& arguments);

}  // namespace specmoe::cli
