#include <iostream>

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/tree_policy.h"
#include "experiments/commands.h"
#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Usage: specmoe list

Prints every drafter, tree topology and acceptance policy with its parameters and their defaults. A name with
parameters, such as 'chain(gamma=4)', is what --drafter, --tree and --accept take; what is left out keeps its default.
)";

/// Whether the bare name will do: every parameter has a default.
template <class Interface>
bool needs_nothing(const Registry<Interface>& registry, const std::string& name) {
  try {
    registry.create(name);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// label: what a plug-in promises, for its first line.
template <class Interface, class Label>
void print_registry(const Registry<Interface>& registry, const char* flag, Label label) {
  std::cout << flag << '\n';
  Table table(3);
  for (const std::string& name : registry.names()) {
    const PluginInfo plugin = registry.describe(name);
    table.row({"  " + name, label(name), plugin.summary});
    const char* empty = needs_nothing(registry, name) ? "(none)" : "(required)";
    for (const Params::Declared& parameter : plugin.parameters) {
      const std::string value = parameter.value.empty() ? empty : "= " + parameter.value;
      table.row({"    " + parameter.key, value, parameter.meaning});
    }
  }
  table.print(std::cout);
  std::cout << '\n';
}

std::string lossless_label(const std::string& name) {
  const auto policy = acceptance_policies().create(name);
  return policy->lossless() ? "lossless" : "LOSSY";
}

void print_laws() {
  std::cout << "lossless for\n";
  Table table(3);
  for (const std::string& name : acceptance_policies().names()) {
    const auto policy = acceptance_policies().create(name);
    table.row({"  " + name, policy->lossless() ? policy->lossless_laws().to_string() : "nothing",
               std::string(policy->judges_trees() ? "chains and trees" : "chains only") +
                   (policy->samples() ? "" : ", temperature 0 only")});
  }
  table.print(std::cout);
}

}  // namespace

int run_list(const std::vector<std::string>& arguments) {
  if (wants_help(arguments)) {
    std::cout << kHelp;
    return 0;
  }
  SPECMOE_CHECK(arguments.empty(), "list takes no arguments, got '", arguments[0], "'");
  const auto none = [](const std::string&) { return std::string(); };
  print_registry(drafters(), "--drafter", none);
  print_registry(tree_policies(), "--tree", none);
  print_registry(acceptance_policies(), "--accept", lossless_label);
  print_laws();
  return 0;
}

}  // namespace specmoe::cli
