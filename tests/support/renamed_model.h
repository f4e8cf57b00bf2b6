#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "core/types.h"

namespace specmoe::test {

/// The ids of a model's vocabulary in another order, the same at every call.
std::vector<TokenId> shuffled_ids(const std::string& model);

/// The ids of a model's vocabulary but every third token of more than one byte.
std::vector<TokenId> thinned_ids(const std::string& model);

/// A copy of a model's folder (safetensors, byte-level tokenizer) whose tokens have other ids. It lasts as long as the
/// object.
///
/// order  [new V] the old id of each new one; tokens that are not named are left out, and merges with them
class RenamedModel {
 public:
  RenamedModel(const std::string& source, std::span<const TokenId> order);
  ~RenamedModel() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  RenamedModel(const RenamedModel&) = delete;
  RenamedModel& operator=(const RenamedModel&) = delete;

  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace specmoe::test
