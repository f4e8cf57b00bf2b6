#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/job_list.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

/// One model's packed weights in a file, so that the next load need not pack them.
///
/// The file is named after the model's path and dtype and says of which checkpoint it was made: for every file its
/// size, time of change and a hash of its beginning. A file that says something else, or whose bytes do not have the
/// checksums they were written with, is not used; save() replaces it. Weights that were changed in place with all of
/// that kept are not noticed.
class WeightCache {
 public:
  using Memory = std::vector<std::span<std::byte>>;

  /// folder  made when it is not there
  /// notice  is told in one line when a file is there that cannot be used
  WeightCache(const std::string& folder, const Checkpoint& checkpoint, kernels::DType dtype,
              std::function<void(const std::string&)> notice);

  /// Fills `memory` from the file. False: there is none that can be used, and memory is all zeros.
  bool load(const Memory& memory, kernels::ThreadPool& pool, const WorkProgress& progress) const;

  /// Keeps what is in memory. The file appears whole or not at all. Throws Error when it cannot be written.
  void save(const Memory& memory, kernels::ThreadPool& pool) const;

 private:
  std::string path_;
  std::string key_;
  std::function<void(const std::string&)> notice_;
};

}  // namespace specmoe::nn
