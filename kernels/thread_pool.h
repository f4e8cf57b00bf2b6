#pragma once

#include <functional>
#include <memory>

#include "kernels/view.h"

namespace specmoe::kernels {

/// A fixed team of threads. The caller is member 0; the others wait, spinning for half a millisecond and then
/// sleeping, so that an idle pool costs nothing and a hot one wakes in well under a microsecond.
class ThreadPool {
 public:
  /// One member of the team inside run().
  class Member {
   public:
    Shard shard() const { return shard_; }
    /// Waits until every member of the team has arrived. All members must make the same sequence of barrier calls.
    void barrier();

   private:
    friend class ThreadPool;
    Member(ThreadPool* pool, Shard shard) : pool_(pool), shard_(shard) {}
    ThreadPool* pool_;
    Shard shard_;
  };

  /// threads  1 or more, the caller's own included; 0 means one per usable core
  /// pin      bind every member but the caller to a core of its own, and keep the caller off those, when the process
  ///          is allowed that many cores
  explicit ThreadPool(int threads, bool pin = true);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  /// Runs `work` once on every member and returns when all are done. Not reentrant. An exception thrown by member 0
  /// before its first barrier reaches the caller; work must not throw after that. Throws Error in a process that was
  /// forked off since, where a team of more than one has no threads.
  void run(const std::function<void(Member&)>& work);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace specmoe::kernels
