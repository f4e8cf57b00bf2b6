// The command-line program: specmoe generate | bench | tune | list | inspect | convert | prove.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "experiments/commands.h"
#include "experiments/interrupt.h"
#include "experiments/prove_command.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Speculative decoding of Mixture-of-Experts language models.

Usage: specmoe COMMAND [option]...

  generate   continue texts, plainly or speculatively
  bench      measure speculative against plain decoding on the same prompts
  tune       the tree that pays most for a target, a drafter and a kind of text: predicted, then measured
  list       drafters, tree topologies and acceptance policies, with parameters
  inspect    a checkpoint's architecture, parameters and memory, before loading it
  convert    a checkpoint in int8 or bfloat16, and what rounding did to it
  prove      whether a policy keeps the target's distribution, by exact enumeration

`specmoe COMMAND --help` explains a command's options, with examples. First steps:
  specmoe list
  specmoe generate --target experiments/models/target --prompt "Problem: Ada has 3 apples"

Results go to stdout, progress to stderr. Exit code 2: a mistake in the call, explained in one line. --version prints the
version.
)";

using Run = std::function<int(const std::vector<std::string>&)>;

const std::map<std::string, Run>& commands() {
  static const std::map<std::string, Run> all = {
      {"generate", run_generate}, {"bench", run_bench},     {"tune", run_tune},  {"list", run_list},
      {"inspect", run_inspect},   {"convert", run_convert}, {"prove", run_prove}};
  return all;
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    std::cerr << kHelp;
    return 2;
  }
  if (arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    std::cout << kHelp;
    return 0;
  }
  if (arguments[0] == "--version") {
    std::cout << "specmoe " << SPECMOE_VERSION << '\n';
    return 0;
  }
  const auto command = commands().find(arguments[0]);
  SPECMOE_CHECK(command != commands().end(), "unknown command '", arguments[0],
                "'; known: bench, convert, generate, inspect, list, prove, tune; see specmoe --help");
  return command->second({arguments.begin() + 1, arguments.end()});
}

/// A standard stream that came closed stays unusable: else the first file to be opened would take its place, and what
/// is printed would go into it.
void hold_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) < 0) static_cast<void>(open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY));
  }
}

/// The exit code, when all that was printed has arrived.
int finish(int code) {
  std::cout.flush();
  poll_interrupt();  // nobody reads on
  SPECMOE_CHECK(std::cout, "writing the standard output failed: it is closed, or the disk is full");
  return code;
}

/// Errors are one line, whatever is in them.
int report(const char* kind, std::string text, int code) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::cout.flush();
  std::cerr << "specmoe: " << kind << ": " << text << std::endl;
  return code;
}

}  // namespace

bool wants_help(const std::vector<std::string>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [](const std::string& argument) { return argument == "--help" || argument == "-h"; });
}

}  // namespace specmoe::cli

int main(int argc, char** argv) {
  using namespace specmoe::cli;
  hold_closed_streams();
  catch_signals();
  try {
    return finish(run({argv + 1, argv + argc}));
  } catch (const Interrupted& interrupted) {
    std::cout << std::endl;
    std::cerr << "specmoe: interrupted" << std::endl;
    return 128 + interrupted.signal;
  } catch (const specmoe::Error& error) {
    return report("error", error.what(), 2);
  } catch (const std::bad_alloc&) {
    return report("error", "out of memory; `specmoe inspect` shows what a model needs", 2);
  } catch (const std::exception& error) {
    return report("internal error", error.what(), 70);
  }
}
