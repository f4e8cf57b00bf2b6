#pragma once

#include <cstddef>
#include <string>

namespace specmoe::nn {

/// A file mapped read-only. Throws Error when it cannot be opened or is not a plain file.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// Takes the pages read so far out of this process's memory; they come back when they are read again.
  void release() const;

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace specmoe::nn
