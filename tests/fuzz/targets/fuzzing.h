#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "kernels/check.h"

namespace specmoe::fuzzing {

/// A failure stops the fuzzer, which keeps the input.
inline void require(bool condition) {
  if (!condition) std::abort();
}

/// Nothing but an Error of one line may come out of `work`. Whether it worked.
template <class Work>
bool works_or_is_refused(Work&& work) {
  try {
    std::forward<Work>(work)();
    return true;
  } catch (const Error& error) {
    require(std::strlen(error.what()) > 10 && std::strchr(error.what(), '\n') == nullptr);
    return false;
  }
}

/// A file in memory with a name that can be opened.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::byte> bytes) : file_(memfd_create("fuzz", 0)) {
    require(file_ >= 0 && write(file_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  ~MemoryFile() { close(file_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

}  // namespace specmoe::fuzzing
