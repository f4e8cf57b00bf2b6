#include "kernels/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "kernels/check.h"

namespace specmoe::kernels {
namespace {

/// Thrown out of barrier() when member 0 has failed and will never arrive.
struct Abandoned {};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

using Clock = std::chrono::steady_clock;

/// Waits until `word` differs from `old`: spins first, because the usual wait is shorter than a system call, then
/// sleeps, so that a team beside other busy processes still makes progress.
void wait_change(const std::atomic<std::uint32_t>& word, std::uint32_t old, std::chrono::microseconds spin) {
  constexpr int kLooks = 64;  // before each look at the clock
  Clock::time_point end{};
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (word.load(std::memory_order_acquire) != old) return;
      pause();
    }
    if (end == Clock::time_point{}) end = Clock::now() + spin;
  } while (Clock::now() < end);
  word.wait(old, std::memory_order_acquire);
}

std::vector<int> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

cpu_set_t one_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return set;
}

/// Moves the calling thread to `core` at once, and then lets it go where it could go before: threads it starts later
/// must not inherit a binding.
void move_to(int core) {
  cpu_set_t before;
  if (sched_getaffinity(0, sizeof(before), &before) != 0) return;
  const cpu_set_t only = one_core(core);
  if (sched_setaffinity(0, sizeof(only), &only) == 0) sched_setaffinity(0, sizeof(before), &before);
}

/// How many barriers a member has reached.
struct alignas(64) Progress {
  std::atomic<std::uint32_t> reached{0};
};

}  // namespace

struct ThreadPool::State {
  pid_t process = getpid();
  int size = 1;
  std::chrono::microseconds spin{0};       // before a member that waits for others inside run() sleeps
  std::chrono::microseconds idle_spin{0};  // likewise between two runs
  std::vector<int> cores;                  // of the members, when every one has its own; cores[0] is the caller's
  std::vector<std::thread> threads;
  const std::function<void(Member&)>* work = nullptr;
  std::atomic<bool> stopping{false};
  std::atomic<std::int64_t> abandoned{-1};         // number of the barrier member 0 failed before; -1: none
  alignas(64) std::atomic<std::uint32_t> task{0};  // changes when there is work
  std::unique_ptr<Progress[]> progress;            // of every member

  /// Everyone tells on a cache line of its own how many barriers it has reached, and reads the others'. Returns the
  /// number of this barrier.
  std::uint32_t arrive_and_wait(int index) {
    std::atomic<std::uint32_t>& own = progress[static_cast<std::size_t>(index)].reached;
    const std::uint32_t mine = own.load(std::memory_order_relaxed) + 1;
    // Sequentially consistent, here and wherever a sleeper is notified: the waker's look for sleepers must not
    // overtake its store.
    own.store(mine, std::memory_order_seq_cst);
    own.notify_all();
    for (int other = 0; other < size; ++other) {
      const std::atomic<std::uint32_t>& word = progress[static_cast<std::size_t>(other)].reached;
      // Nobody is more than one barrier ahead or behind.
      while (word.load(std::memory_order_acquire) == mine - 1) wait_change(word, mine - 1, spin);
    }
    return mine;
  }

  /// The caller is not bound, so the scheduler may put it beside a bound member, where each waits for the other's time
  /// slice to end: measured, a run then takes fifty times as long.
  void keep_caller_apart() const {
    const int core = sched_getcpu();
    for (std::size_t i = 1; i < cores.size(); ++i) {
      if (cores[i] == core) return move_to(cores[0]);
    }
  }
};

void ThreadPool::Member::barrier() {
  State& state = *pool_->state_;
  if (state.size == 1) return;
  const std::int64_t passed = state.arrive_and_wait(shard_.index);
  if (shard_.index != 0 && state.abandoned.load(std::memory_order_acquire) == passed) throw Abandoned{};
}

ThreadPool::ThreadPool(int threads, bool pin) : state_(std::make_unique<State>()) {
  SPECMOE_CHECK(threads >= 0 && threads <= 1024, "threads must be 0 (all cores) to 1024, got ", threads);
  constexpr std::chrono::microseconds kSpin{50};
  // Longer than a small drafter, or sampling, keeps the caller between two passes: to be woken costs tens of
  // microseconds, and beside busy processes as long as a time slice of theirs.
  constexpr std::chrono::microseconds kIdleSpin{500};
  constexpr std::chrono::microseconds kCrowdedSpin{1};  // more members than cores: whoever waits is in the way
  const std::vector<int> cores = allowed_cores();
  state_->size = threads == 0 ? static_cast<int>(cores.size()) : threads;
  const auto size = static_cast<std::size_t>(state_->size);
  state_->progress = std::make_unique<Progress[]>(size);
  const bool crowded = size > cores.size();
  state_->spin = crowded ? kCrowdedSpin : kSpin;
  state_->idle_spin = crowded ? kCrowdedSpin : kIdleSpin;
  if (pin && !crowded) state_->cores.assign(cores.begin(), cores.begin() + state_->size);
  for (int index = 1; index < state_->size; ++index) {
    state_->threads.emplace_back([this, index] {
      State& state = *state_;
      std::uint32_t seen = 0;
      while (true) {
        wait_change(state.task, seen, state.idle_spin);
        seen = state.task.load(std::memory_order_acquire);
        if (state.stopping.load(std::memory_order_acquire)) return;
        Member member(this, {index, state.size});
        try {
          (*state.work)(member);
          member.barrier();
        } catch (const Abandoned&) {
          state.arrive_and_wait(index);
        }
      }
    });
    if (state_->cores.empty()) continue;
    const cpu_set_t only = one_core(cores[static_cast<std::size_t>(index)]);
    pthread_setaffinity_np(state_->threads.back().native_handle(), sizeof(only), &only);
  }
}

ThreadPool::~ThreadPool() {
  // A process that was forked off has none of the threads, and no way to be rid of their handles.
  if (state_->process != getpid()) {
    static_cast<void>(state_.release());
    return;
  }
  state_->stopping.store(true, std::memory_order_release);
  state_->task.fetch_add(1, std::memory_order_seq_cst);
  state_->task.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::size() const { return state_->size; }

void ThreadPool::run(const std::function<void(Member&)>& work) {
  State& state = *state_;
  Member self(this, {0, state.size});
  if (state.size == 1) return work(self);
  SPECMOE_CHECK(state.process == getpid(), "a team of ", state.size,
                " threads was started by another process, whose threads a fork leaves behind; load the model in each "
                "process, or give it one thread");
  state.keep_caller_apart();
  state.work = &work;
  state.task.fetch_add(1, std::memory_order_seq_cst);
  state.task.notify_all();
  std::exception_ptr error;
  try {
    work(self);
  } catch (...) {
    error = std::current_exception();
    state.abandoned.store(state.progress[0].reached.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  state.arrive_and_wait(0);
  if (error) {
    state.arrive_and_wait(0);  // everyone has seen it
    state.abandoned.store(-1, std::memory_order_release);
    std::rethrow_exception(error);
  }
}

}  // namespace specmoe::kernels
