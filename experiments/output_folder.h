#pragma once

#include <filesystem>

namespace specmoe::cli {

/// A result folder that is there whole or not at all: files go to `DIR.tmp-PID`, which takes the name DIR in commit()
/// and is removed when the object dies without.
class OutputFolder {
 public:
  /// Throws Error at once when DIR is there already (an empty folder may be) or cannot be made.
  explicit OutputFolder(std::filesystem::path path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Where to write.
  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
};

}  // namespace specmoe::cli
