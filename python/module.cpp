#include "kernels/check.h"
#include "python/bindings.h"

PYBIND11_MODULE(_specmoe, m) {
  namespace py = pybind11;
  using namespace specmoe::python;

  m.doc() = "Speculative decoding of mixture-of-experts language models.";
  // Everything is used through the package, so that is the module its classes name.
  m.attr("__name__") = "specmoe";
  m.attr("__version__") = SPECMOE_VERSION;
  py::register_exception<specmoe::Error>(m, "Error", PyExc_ValueError).doc() =
      "What specmoe raises: one line that says what was wanted, what came and what to do. A ValueError.";

  bind_tensor(m);
  bind_model(m);
  bind_values(m);
  bind_acceptance(m);
  bind_topology(m);
  bind_drafter(m);
  bind_registry(m);
  bind_result(m);
  bind_engine(m);
  bind_prover(m);
  bind_sweep(m);
}
