#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/params.h"
#include "kernels/check.h"

namespace specmoe {

struct PluginInfo {
  std::string name;
  std::string summary;
  std::vector<Params::Declared> parameters;
};

namespace detail {
[[noreturn]] void unknown_plugin(std::string_view kind, std::string_view name, const std::vector<std::string>& known);
}

/// Plug-ins of one kind by name. A spec string configures one: `create("chain(gamma=4)")`.
template <class Interface>
class Registry {
 public:
  using Factory = std::function<std::shared_ptr<Interface>(Params&)>;

  explicit Registry(std::string kind) : kind_(std::move(kind)) {}

  /// Registering a name again replaces it only when `replace` is set (a Python class being re-run in a notebook).
  void add(const std::string& name, Factory factory, std::string summary, bool replace = false) {
    SPECMOE_CHECK(replace || !entries_.contains(name), kind_, " '", name, "' is registered twice");
    entries_[name] = {std::move(factory), std::move(summary)};
  }

  /// Throws Error: an unknown name lists the known ones, an unknown parameter the accepted ones.
  std::shared_ptr<Interface> create(std::string_view spec) const {
    std::string canonical;
    return create(spec, canonical);
  }
  /// The same, and the spec with every parameter written out.
  std::shared_ptr<Interface> create(std::string_view spec, std::string& canonical) const {
    Params params = Params::parse(spec);
    std::shared_ptr<Interface> made = find(params.name()).factory(params);
    params.finish();
    canonical = params.canonical();
    return made;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, entry] : entries_) all.push_back(name);
    return all;
  }

  PluginInfo describe(const std::string& name) const {
    const Entry& entry = find(name);
    Params params = Params::describing(name);
    entry.factory(params);
    return {name, entry.summary, params.declared()};
  }

  const std::string& kind() const { return kind_; }

 private:
  struct Entry {
    Factory factory;
    std::string summary;
  };
  const Entry& find(const std::string& name) const {
    auto found = entries_.find(name);
    if (found == entries_.end()) detail::unknown_plugin(kind_, name, names());
    return found->second;
  }

  std::string kind_;
  std::map<std::string, Entry> entries_;
};

template <class Interface, class Type>
struct Registration {
  Registration(Registry<Interface>& registry, const char* name, const char* summary) {
    registry.add(
        name, [](Params& params) -> std::shared_ptr<Interface> { return std::make_shared<Type>(params); }, summary);
  }
};

}  // namespace specmoe

/// The one line at the end of a plug-in's file.
#define SPECMOE_REGISTER(registry, name, Type, summary) \
  static const ::specmoe::Registration Type##_registration = ::specmoe::make_registration<Type>(registry, name, summary)

namespace specmoe {
template <class Type, class Interface>
Registration<Interface, Type> make_registration(Registry<Interface>& registry, const char* name, const char* summary) {
  return Registration<Interface, Type>(registry, name, summary);
}
}  // namespace specmoe
