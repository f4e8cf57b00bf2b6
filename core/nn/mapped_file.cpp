#include "core/nn/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/check.h"

namespace specmoe::nn {

MappedFile::MappedFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  SPECMOE_CHECK(file >= 0, "cannot open ", path, ": ", std::strerror(errno));
  struct stat status{};
  const bool plain = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  void* memory = MAP_FAILED;
  if (plain && status.st_size > 0) {
    memory = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  }
  const int error = errno;
  close(file);
  SPECMOE_CHECK(plain, "cannot read ", path, ": not a file");
  if (status.st_size == 0) return;
  SPECMOE_CHECK(memory != MAP_FAILED, "cannot map ", path, ": ", std::strerror(error));
  data_ = static_cast<const std::byte*>(memory);
  size_ = static_cast<std::size_t>(status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release() const {
  if (data_ != nullptr) madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

}  // namespace specmoe::nn
