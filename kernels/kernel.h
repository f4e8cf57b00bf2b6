#pragma once

#include <array>
#include <string>

#include "kernels/backend.h"
#include "kernels/check.h"

namespace specmoe::kernels {

template <class Signature>
class Kernel;

/// One operation, one signature, one implementation per back end. Declared `extern` in the operation's header, defined
/// in its .cpp; each implementation file adds itself:
///     SPECMOE_KERNEL(rms_norm, Backend::kAvx2, rms_norm_avx2);
template <class... Args>
class Kernel<void(Args...)> {
 public:
  using Function = void (*)(Args...);

  explicit constexpr Kernel(const char* name) : name_(name) {}

  const char* name() const { return name_; }
  bool has(Backend backend) const { return table_[index(backend)] != nullptr; }
  void add(Backend backend, Function function) { table_[index(backend)] = function; }

  /// The implementation for exactly this back end. Throws Error when there is none: nothing falls back silently.
  Function on(Backend backend) const {
    Function function = table_[index(backend)];
    SPECMOE_CHECK(function != nullptr, "kernel ", name_, " has no ", backend_name(backend), " implementation");
    return function;
  }

  /// The best CPU implementation not above `limit` (an op that gains nothing from AMX has no AMX version).
  Function up_to(Backend limit) const {
    for (std::size_t i = index(limit) + 1; i-- > 0;) {
      if (table_[i] != nullptr) return table_[i];
    }
    fail("kernel ", name_, " has no implementation up to ", backend_name(limit));
  }

 private:
  static constexpr std::size_t index(Backend backend) { return static_cast<std::size_t>(backend); }

  const char* name_;
  std::array<Function, kBackendCount> table_{};
};

template <class Signature>
struct KernelRegistration {
  KernelRegistration(Kernel<Signature>& kernel, Backend backend, typename Kernel<Signature>::Function function) {
    kernel.add(backend, function);
  }
};

}  // namespace specmoe::kernels

#define SPECMOE_KERNEL(kernel, backend, function) \
  static const ::specmoe::kernels::KernelRegistration kernel##_##function##_registration(kernel, backend, function)
