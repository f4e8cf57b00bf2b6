#include "core/registry.h"

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/tree_policy.h"

namespace specmoe {

namespace detail {
void unknown_plugin(std::string_view kind, std::string_view name, const std::vector<std::string>& known) {
  std::string all;
  for (const std::string& one : known) all += (all.empty() ? "" : ", ") + one;
  fail("unknown ", kind, " '", name, "'; known: ", all);
}
}  // namespace detail

// Defined here and not in headers: an inline accessor would be a second, empty registry inside the Python module.
Registry<AcceptancePolicy>& acceptance_policies() {
  static Registry<AcceptancePolicy> registry("acceptance policy");
  return registry;
}

Registry<TreePolicy>& tree_policies() {
  static Registry<TreePolicy> registry("tree topology");
  return registry;
}

Registry<Drafter>& drafters() {
  static Registry<Drafter> registry("drafter");
  return registry;
}

}  // namespace specmoe
