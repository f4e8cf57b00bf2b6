#include <pybind11/stl.h>

#include <set>
#include <string>

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/registry.h"
#include "core/tree_policy.h"
#include "python/bindings.h"

namespace specmoe::python {
namespace {

/// One argument of a Python plug-in's constructor, asked for as a plug-in in C++ asks for its parameters. Its type is
/// that of the default, or what the annotation says.
py::object parameter(Params& params, const py::handle& declared) {
  const auto name = declared.attr("name").cast<std::string>();
  const py::object none = declared.attr("empty");
  const py::object fallback = declared.attr("default");
  if (declared.attr("kind").is(declared.attr("VAR_POSITIONAL"))) return py::cast(params.integers(name, {}, ""));
  if (fallback.is(none)) return py::cast(params.required_text(name, ""));
  if (py::isinstance<py::bool_>(fallback)) return py::cast(params.boolean(name, fallback.cast<bool>(), ""));
  if (py::isinstance<py::int_>(fallback)) return py::cast(params.integer(name, fallback.cast<int>(), ""));
  if (py::isinstance<py::float_>(fallback)) return py::cast(params.real(name, fallback.cast<double>(), ""));
  if (py::isinstance<py::str>(fallback)) return py::cast(params.text(name, fallback.cast<std::string>(), ""));
  fail("parameter '", name, "': the default of a registered plug-in is a bool, int, float or str, got ",
       py::repr(fallback).cast<std::string>());
}

/// The parameters of a class's constructor; none when it is that of a base class bound here.
py::list signature_of(py::handle type) {
  if (!py::hasattr(type.attr("__init__"), "__code__")) return py::list();
  return py::list(py::module_::import("inspect").attr("signature")(type).attr("parameters").attr("values")());
}

py::object construct(py::handle type, Params& params) {
  py::list positional;
  py::dict named;
  for (py::handle declared : signature_of(type)) {
    const py::object value = parameter(params, declared);
    if (declared.attr("kind").is(declared.attr("VAR_POSITIONAL"))) {
      for (py::handle item : value) positional.append(item);
    } else {
      named[declared.attr("name")] = value;
    }
  }
  return type(*positional, **named);
}

template <class Interface>
void add_class(Registry<Interface>& registry, const std::string& name, py::object type, const std::string& summary) {
  Params declared = Params::describing(name);
  for (py::handle argument : signature_of(type)) parameter(declared, argument);
  // A class may be registered again, from a notebook cell run twice; what comes with the library may not be replaced.
  static std::set<std::string> from_python;
  // Registries outlive the interpreter, so the class is never released.
  PyObject* kept = type.release().ptr();
  registry.add(
      name,
      [kept](Params& params) {
        py::gil_scoped_acquire locked;
        return construct(kept, params).template cast<std::shared_ptr<Interface>>();
      },
      summary, from_python.contains(name));
  from_python.insert(name);
}

void add_plugin(const std::string& name, const py::object& type, std::string summary) {
  if (!PyType_Check(type.ptr()))
    throw py::type_error("register: expected a class, got " + py::repr(type).cast<std::string>());
  SPECMOE_CHECK(Params::parse(name).name() == name, "register: expected a name alone, got '", name, "'");
  const py::object doc = type.attr("__doc__");
  if (summary.empty() && !doc.is_none()) {
    summary = py::str(py::str(doc).attr("strip")().attr("partition")("\n").attr("__getitem__")(0)).cast<std::string>();
  }
  const auto derives = [&type](const py::handle& base) { return PyObject_IsSubclass(type.ptr(), base.ptr()) == 1; };
  if (derives(py::type::of<AcceptancePolicy>())) return add_class(acceptance_policies(), name, type, summary);
  if (derives(py::type::of<TreePolicy>())) return add_class(tree_policies(), name, type, summary);
  if (derives(py::type::of<Drafter>())) return add_class(drafters(), name, type, summary);
  throw py::type_error("register: expected a subclass of AcceptancePolicy, TreePolicy or Drafter, got " +
                       py::repr(type).cast<std::string>());
}

template <class Interface>
py::dict listing(const Registry<Interface>& registry) {
  py::dict known;
  for (const std::string& name : registry.names()) known[py::str(name)] = registry.describe(name);
  return known;
}

}  // namespace

void bind_registry(py::module_& m) {
  py::class_<Params::Declared>(m, "Parameter", "A parameter of a plug-in.")
      .def_readonly("name", &Params::Declared::key, "As in a spec string.")
      .def_readonly("default", &Params::Declared::value, "As it would be written; '' when it must be given.")
      .def_readonly("meaning", &Params::Declared::meaning, "One line.")
      .def("__repr__", [](const Params::Declared& self) { return self.key + "=" + self.value; });

  py::class_<PluginInfo>(m, "PluginInfo", "A registered drafter, topology or policy.")
      .def_readonly("name", &PluginInfo::name, "What a spec string begins with.")
      .def_readonly("summary", &PluginInfo::summary, "One line on what it does.")
      .def_readonly("parameters", &PluginInfo::parameters, "Its Parameters, in positional order.")
      .def("__repr__", [](const PluginInfo& self) {
        std::string text = self.name;
        for (std::size_t i = 0; i < self.parameters.size(); ++i) {
          text += (i == 0 ? "(" : ", ") + self.parameters[i].key + "=" + self.parameters[i].value;
        }
        return "<" + text + (self.parameters.empty() ? "" : ")") + ": " + self.summary + ">";
      });

  m.def("drafters", [] { return listing(drafters()); }, "Registered drafters: PluginInfo by name.");
  m.def("tree_policies", [] { return listing(tree_policies()); }, "Registered topologies: PluginInfo by name.");
  m.def(
      "acceptance_policies", [] { return listing(acceptance_policies()); },
      "Registered acceptance policies: PluginInfo by name.");

  m.def(
      "register",
      [](const std::string& name, const std::string& summary) {
        return py::cpp_function(
            [name, summary](py::object type) {
              add_plugin(name, type, summary);
              return type;
            },
            py::arg("type"));
      },
      py::arg("name"), py::arg("summary") = "",
      "Class decorator: makes a Drafter, TreePolicy or AcceptancePolicy known by name, so that spec strings may use "
      "it.\n\n"
      "The parameters of its __init__ become the plug-in's: bool, int, float or str, by their defaults; one without a\n"
      "default is a str that must be given; *widths takes integers. __init__ only keeps them: it also runs to list "
      "what\n"
      "there is. summary is the first line of the docstring unless given.");
}

}  // namespace specmoe::python
