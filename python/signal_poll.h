#pragma once

#include <chrono>

#include "python/bindings.h"

namespace specmoe::python {

/// Raises what a signal handler of Python raised (KeyboardInterrupt), looking a few times a second. Called without the
/// GIL, by one thread.
class SignalPoll {
 public:
  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    py::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace specmoe::python
