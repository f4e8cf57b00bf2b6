#pragma once

#include <filesystem>
#include <string>

namespace specmoe::test {

/// A folder of random Medusa heads of one block that end in the target's output matrix; removed at the end.
class MedusaFolder {
 public:
  /// scale  weights lie in [-scale, scale)
  explicit MedusaFolder(int hidden_size, float scale = 0.1F);
  ~MedusaFolder() { std::filesystem::remove_all(path_); }
  MedusaFolder(const MedusaFolder&) = delete;
  MedusaFolder& operator=(const MedusaFolder&) = delete;

  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace specmoe::test
