#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/language_model.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"

/// The extension module `_specmoe`, which the package `specmoe` re-exports. One bind_ function per topic.
///
/// Models and engines run without the GIL. Plug-ins written in Python take it for each of their calls, and whatever
/// they raise travels through the engine to the caller as it is.
namespace specmoe::python {

namespace py = pybind11;

void bind_tensor(py::module_& m);
void bind_model(py::module_& m);
void bind_values(py::module_& m);
void bind_acceptance(py::module_& m);
void bind_topology(py::module_& m);
void bind_drafter(py::module_& m);
void bind_registry(py::module_& m);
void bind_result(py::module_& m);
void bind_engine(py::module_& m);
void bind_prover(py::module_& m);
void bind_sweep(py::module_& m);

/// A loaded checkpoint as Python sees it.
struct Model {
  std::string path;
  nn::LoadOptions options;  // its thread pool too, which drafters of an engine share
  std::shared_ptr<LanguageModel> network;
  std::shared_ptr<const nn::Tokenizer> tokenizer;  // null: the folder has none
  /// Held while anything runs on the pool: Python threads may share a model. Recursive, because a plug-in written in
  /// Python may ask the target for logits from inside the engine.
  std::recursive_mutex running;
  pid_t process = getpid();  // that loaded it

  /// Throws Error in a process that was forked off since: the pool's threads are not there.
  void check_process() const;
};

/// The target of the engine that this thread is assembling: what drafters written in Python are attached to.
std::shared_ptr<Model>& assembling();

/// options.pool and options.notice are set here; what load_model() has to say becomes a Python warning. With the GIL.
std::shared_ptr<Model> load(const std::string& path, nn::LoadOptions options);

/// A read-only NumPy view [values.size()] of memory that `owner` keeps alive.
template <class T>
py::array view(std::span<const T> values, py::handle owner) {
  py::array_t<T> array(static_cast<py::ssize_t>(values.size()), values.data(), owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

/// A NumPy array of this shape that takes over the memory of `values`.
template <class T>
py::array adopt(std::vector<T> values, std::vector<py::ssize_t> shape) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  const T* data = kept->data();
  py::capsule owner(kept.release(), [](void* memory) { delete static_cast<std::vector<T>*>(memory); });
  return py::array_t<T>(std::move(shape), data, owner);
}

/// A float32 matrix whose rows follow one another, on the CPU or on a CUDA device.
struct Tensor {
  std::shared_ptr<float> memory;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::optional<int> cuda;
};

/// The NumPy array of what a caller gave: anything that numpy.asarray takes, or that speaks DLPack, copied to the CPU
/// when it lies on a device.
py::object as_array(py::handle given);

/// A copy [tokens.size()] of its own.
inline py::array_t<TokenId> tokens_array(std::span<const TokenId> tokens) {
  return py::array_t<TokenId>(static_cast<py::ssize_t>(tokens.size()), tokens.data());
}

/// Token ids from a sequence of integers or an integer array. what names them in errors.
std::vector<TokenId> to_token_ids(py::handle given, const std::string& what);

}  // namespace specmoe::python
