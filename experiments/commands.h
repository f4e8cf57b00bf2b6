#pragma once

#include <string>
#include <vector>

namespace specmoe::cli {

/// The subcommands. arguments: what follows the command's name. They return the process's exit code and throw Error
/// for what the user has to mend.
int run_generate(const std::vector<std::string>& arguments);
int run_bench(const std::vector<std::string>& arguments);
int run_tune(const std::vector<std::string>& arguments);
int run_list(const std::vector<std::string>& arguments);
int run_inspect(const std::vector<std::string>& arguments);
int run_convert(const std::vector<std::string>& arguments);

/// Whether --help or -h is among them.
bool wants_help(const std::vector<std::string>& arguments);

}  // namespace specmoe::cli
