#include "core/nn/job_list.h"

#include <atomic>
#include <exception>
#include <mutex>

namespace specmoe::nn {

void JobList::add(std::int64_t bytes, std::function<void()> work) {
  jobs_.push_back({bytes, std::move(work)});
  bytes_ += bytes;
}

void JobList::run(kernels::ThreadPool& pool, const WorkProgress& progress) {
  std::atomic<std::size_t> next{0};
  std::atomic<std::int64_t> done{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  std::mutex mutex;
  pool.run([&](kernels::ThreadPool::Member& member) {
    for (std::size_t i = next++; i < jobs_.size() && !failed; i = next++) {
      try {
        jobs_[i].work();
        done += jobs_[i].bytes;
        if (progress && member.shard().index == 0) progress(done, bytes_);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace specmoe::nn
