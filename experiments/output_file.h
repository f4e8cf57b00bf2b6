#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace specmoe::cli {

/// A result file that is there whole or not at all: lines go to `FILE.tmp`, which takes the name FILE in commit() and
/// is removed when the object dies without. Devices and pipes are written directly.
class OutputFile {
 public:
  /// Empty path: every call does nothing. Throws Error at once when the file cannot be written.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void line(std::string_view text);
  /// Throws Error when the disk is full or the file cannot be put in place.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty: written directly
  std::ofstream stream_;
  bool committed_ = false;
};

}  // namespace specmoe::cli
