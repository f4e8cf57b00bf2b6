#include "kernels/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/check.h"

namespace specmoe::kernels {
namespace {

TEST(ThreadPoolTest, EveryMemberRunsOnceWithItsOwnShard) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    std::vector<int> seen(static_cast<std::size_t>(threads), 0);
    for (int round = 0; round < 50; ++round) {
      pool.run([&](ThreadPool::Member& member) {
        EXPECT_EQ(member.shard().count, threads);
        ++seen[static_cast<std::size_t>(member.shard().index)];
      });
    }
    EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(threads), 50));
  }
}

// A drafter on a thread of its own keeps the team waiting for so long; waking it would cost as much as a pass saves.
TEST(ThreadPoolTest, StaysAwakeWhileTheCallerWorksBetweenRuns) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two cores: one has no team that spins";
  const auto sleeps = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
  };
  ThreadPool pool(2);
  pool.run([](ThreadPool::Member&) {});
  const long before = sleeps();
  for (int round = 0; round < 100; ++round) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(120);
    while (std::chrono::steady_clock::now() < end) continue;
    pool.run([](ThreadPool::Member&) {});
  }
  EXPECT_LT(sleeps() - before, 50) << "other programs explain a few, not one in every other round";
}

// A running sum passed round the team: member i adds in phase i of each round, everybody checks after the barrier.
// More members than cores, so that waits also sleep.
TEST(ThreadPoolTest, BarriersOrderPlainMemory) {
  for (const int threads : {2, 4}) {
    ThreadPool pool(threads);
    std::int64_t sum = 0;
    std::atomic<int> wrong{0};
    for (int run = 0; run < 20; ++run) {
      sum = 0;
      pool.run([&](ThreadPool::Member& member) {
        for (int phase = 0; phase < 100; ++phase) {
          if (member.shard().index == phase % threads) sum += phase;
          member.barrier();
          if (sum != std::int64_t{phase} * (phase + 1) / 2) ++wrong;
          member.barrier();
        }
      });
      EXPECT_EQ(sum, 4950);
    }
    EXPECT_EQ(wrong.load(), 0);
  }
}

TEST(ThreadPoolTest, CallerSeesItsExceptionAndThePoolLivesOn) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 100; ++round) {
      std::atomic<int> past{0};
      EXPECT_THROW(pool.run([&](ThreadPool::Member& member) {
        if (member.shard().index == 0) throw std::runtime_error("broken");
        member.barrier();
        ++past;
      }),
                   std::runtime_error);
      EXPECT_EQ(past.load(), 0) << "nobody may pass the barrier the caller never reached";
      std::atomic<int> count{0};
      pool.run([&](ThreadPool::Member& member) {
        ++count;
        member.barrier();
        ++count;
      });
      EXPECT_EQ(count.load(), 2 * threads);
    }
  }
}

TEST(ThreadPoolTest, AForkCannotUseTheThreadsOfItsParent) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      try {
        pool.run([](ThreadPool::Member& member) { member.barrier(); });
        _exit(1);
      } catch (const Error&) {
        _exit(2);
      }
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), threads);
  }
}

TEST(ThreadPoolTest, ZeroMeansAllCoresAndNegativeIsRefused) {
  EXPECT_GE(ThreadPool(0).size(), 1);
  EXPECT_THROW(ThreadPool(-1), Error);
  EXPECT_THROW(ThreadPool(1 << 20), Error);
}

}  // namespace
}  // namespace specmoe::kernels
