#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace specmoe::kernels {

/// One way to run a kernel. CPU back ends are ordered: each can stand in for those after it only by falling back to an
/// earlier one, and which one runs is chosen once, at run time, from what the processor has.
enum class Backend { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmx, kCuda };
inline constexpr std::size_t kBackendCount = 6;

std::string_view backend_name(Backend backend);

/// Throws Error for an unknown name; the text lists the known ones.
Backend backend_from_name(std::string_view name);

/// Whether this machine can execute the back end's instructions (operating system support included).
bool backend_available(Backend backend);

/// The best CPU back end of this machine, or the one named by the environment variable SPECMOE_ISA (for tests and
/// comparisons). Throws Error when that name is unknown or not available here.
Backend default_cpu_backend();

}  // namespace specmoe::kernels
