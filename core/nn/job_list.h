#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/thread_pool.h"

namespace specmoe::nn {

/// How much of some work is done, in bytes. Called on the thread that asked for the work; may throw to stop it.
using WorkProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// Independent pieces of work over weights; a team takes them one by one, in order.
class JobList {
 public:
  void add(std::int64_t bytes, std::function<void()> work);
  std::int64_t bytes() const { return bytes_; }

  /// Throws what the first failing job threw; jobs that have not begun are then left undone.
  void run(kernels::ThreadPool& pool, const WorkProgress& progress = {});

 private:
  struct Job {
    std::int64_t bytes;
    std::function<void()> work;
  };
  std::vector<Job> jobs_;
  std::int64_t bytes_ = 0;
};

}  // namespace specmoe::nn
