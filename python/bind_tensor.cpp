#include <pybind11/stl.h>

#include <array>
#include <utility>

#include "kernels/check.h"
#include "python/bindings.h"
#include "python/dlpack.h"

namespace specmoe::python {
namespace {

/// What a DLManagedTensor points to; it goes when the last reader of the memory is done.
struct Shared {
  DLManagedTensor tensor = {};
  std::array<std::int64_t, 2> shape = {};
  std::shared_ptr<float> memory;
};

DLDevice device_of(const Tensor& tensor) { return tensor.cuda ? DLDevice{kDLCUDA, *tensor.cuda} : DLDevice{kDLCPU, 0}; }

/// A capsule that nobody took still owns the tensor; who takes it renames it.
void drop(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;
  auto* tensor = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
  tensor->deleter(tensor);
}

py::capsule to_dlpack(const Tensor& tensor) {
  auto shared = std::make_unique<Shared>();
  shared->shape = {tensor.rows, tensor.cols};
  shared->memory = tensor.memory;
  DLManagedTensor& managed = shared->tensor;
  managed.dl_tensor = {tensor.memory.get(), device_of(tensor), 2, {kDLFloat, 32, 1}, shared->shape.data(), nullptr, 0};
  managed.manager_ctx = shared.get();
  managed.deleter = [](DLManagedTensor* self) { delete static_cast<Shared*>(self->manager_ctx); };
  py::capsule capsule(&managed, "dltensor", &drop);
  static_cast<void>(shared.release());
  return capsule;
}

}  // namespace

py::object as_array(py::handle given) {
  const py::module_ numpy = py::module_::import("numpy");
  if (py::isinstance<py::array>(given) || !py::hasattr(given, "__dlpack__")) return numpy.attr("asarray")(given);
  const auto device = given.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  if (device.first == kDLCPU) return numpy.attr("from_dlpack")(given);
  return numpy.attr("from_dlpack")(given, py::arg("device") = "cpu");  // a copy
}

void bind_tensor(py::module_& m) {
  py::class_<Tensor>(m, "Tensor",
                     "A float32 matrix where it was computed, for libraries that speak DLPack: torch.from_dlpack(t),\n"
                     "numpy.from_dlpack(t). They share its memory, which lasts as long as any of them needs it.")
      .def_property_readonly(
          "shape", [](const Tensor& self) { return std::pair(self.rows, self.cols); }, "(rows, columns).")
      .def(
          "__dlpack__",
          [](const Tensor& self, const py::object&, const py::object&, const py::object& dl_device,
             const py::object& copy) {
            const DLDevice own = device_of(self);
            const bool here = dl_device.is_none() || dl_device.cast<std::pair<int, int>>() ==
                                                         std::pair(static_cast<int>(own.device_type), own.device_id);
            if (!here || (!copy.is_none() && copy.cast<bool>())) {
              throw py::buffer_error("Tensor: it can only be shared where it lies; copy what you took from it");
            }
            return to_dlpack(self);
          },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none(),
          "A capsule of DLPack. The values are there: no stream has to be waited for.")
      .def(
          "__dlpack_device__",
          [](const Tensor& self) {
            return std::pair(static_cast<int>(device_of(self).device_type), device_of(self).device_id);
          },
          "(kind, number) as DLPack counts devices: (1, 0) is the CPU, (2, n) is cuda:n.")
      .def("__repr__", [](const Tensor& self) {
        const std::string device = self.cuda ? concat("cuda:", *self.cuda) : "cpu";
        return concat("<specmoe.Tensor: float32 [", self.rows, ", ", self.cols, "] on ", device, ">");
      });
}

}  // namespace specmoe::python
