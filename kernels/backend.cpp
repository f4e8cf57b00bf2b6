#include "kernels/backend.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "kernels/check.h"

namespace specmoe::kernels {
namespace {

constexpr std::array<std::string_view, kBackendCount> kNames = {"scalar",      "avx2", "avx512",
                                                                "avx512_bf16", "amx",  "cuda"};

std::string known_names() {
  std::string text;
  for (std::string_view name : kNames) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

/// Tile registers also need the kernel's permission to save their 8 KB of state; asking twice is harmless.
bool has_amx() {
  constexpr unsigned kAmxBf16 = 1u << 22;
  constexpr unsigned kAmxTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512_bf16() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool probe(Backend backend) {
  switch (backend) {
    case Backend::kScalar:
      return true;
    case Backend::kAvx2:
      return has_avx2();
    case Backend::kAvx512:
      return has_avx512();
    case Backend::kAvx512Bf16:
      return has_avx512_bf16();
    case Backend::kAmx:
      return has_amx();
    case Backend::kCuda:
      return false;
  }
  return false;
}

}  // namespace

std::string_view backend_name(Backend backend) { return kNames[static_cast<std::size_t>(backend)]; }

Backend backend_from_name(std::string_view name) {
  for (std::size_t i = 0; i < kBackendCount; ++i) {
    if (kNames[i] == name) return static_cast<Backend>(i);
  }
  fail("unknown instruction set '", name, "'; known: ", known_names());
}

bool backend_available(Backend backend) {
  static const auto available = [] {
    std::array<bool, kBackendCount> result{};
    for (std::size_t i = 0; i < kBackendCount; ++i) result[i] = probe(static_cast<Backend>(i));
    return result;
  }();
  return available[static_cast<std::size_t>(backend)];
}

Backend default_cpu_backend() {
  if (const char* name = std::getenv("SPECMOE_ISA"); name != nullptr && *name != '\0') {
    const Backend backend = backend_from_name(name);
    SPECMOE_CHECK(backend != Backend::kCuda, "SPECMOE_ISA names a CPU instruction set, got 'cuda'");
    SPECMOE_CHECK(backend_available(backend), "SPECMOE_ISA=", name,
                  ": this processor cannot run it; unset SPECMOE_ISA");
    return backend;
  }
  for (Backend backend : {Backend::kAmx, Backend::kAvx512Bf16, Backend::kAvx512, Backend::kAvx2}) {
    if (backend_available(backend)) return backend;
  }
  return Backend::kScalar;
}

}  // namespace specmoe::kernels
