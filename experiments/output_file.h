#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace specmoe::cli {

/// A result file that is there whole or not at all: lines go to `FILE.tmp`, which takes the name FILE in commit(), when
/// they are on the disk, and is removed when the object dies without. What a killed run left in FILE.tmp is overwritten
/// by the next. Devices and pipes are written directly.
class OutputFile {
 public:
  /// Empty path: every call does nothing. Throws Error at once when the file cannot be written, or another run is at
  /// it.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Throws Error when the disk is full.
  void line(std::string_view text);
  /// Throws Error when the disk is full or the file cannot be put in place.
  void commit();

 private:
  void open(const std::filesystem::path& path, int flags);
  void open_alone();
  void write_waiting();

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty: written directly
  int file_ = -1;
  std::string waiting_;  // lines not written yet
  bool committed_ = false;
};

}  // namespace specmoe::cli
