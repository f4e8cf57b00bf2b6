#pragma once

#include <memory>
#include <string>

#include "core/registry.h"
#include "python/bindings.h"

namespace specmoe::python {

/// A plug-in as the caller gave it: an object, or a spec string (empty: nothing given).
template <class Interface>
struct Part {
  std::shared_ptr<Interface> object;
  std::string spec;  // an object is named by its class

  Part(const py::object& given, const char* name) {
    if (given.is_none()) return;
    if (py::isinstance<py::str>(given)) {
      spec = given.cast<std::string>();
    } else if (py::isinstance<Interface>(given)) {
      object = given.cast<std::shared_ptr<Interface>>();
      spec = py::type::of(given).attr("__name__").template cast<std::string>();
    } else {
      throw py::type_error(std::string(name) + ": expected a spec string or a plug-in object, got " +
                           py::repr(given).cast<std::string>());
    }
  }
  /// The object, made from the spec when it was a string. canonical: the spec with every parameter written out.
  std::shared_ptr<Interface> make(const Registry<Interface>& registry, std::string& canonical) const {
    canonical = spec;
    return object != nullptr ? object : registry.create(spec, canonical);
  }
  std::shared_ptr<Interface> make(const Registry<Interface>& registry) const {
    std::string canonical;
    return make(registry, canonical);
  }
};

}  // namespace specmoe::python
