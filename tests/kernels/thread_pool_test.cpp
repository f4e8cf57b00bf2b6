#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
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

TEST(ThreadPoolTest, ZeroMeansAllCoresAndNegativeIsRefused) {
  EXPECT_GE(ThreadPool(0).size(), 1);
  EXPECT_THROW(ThreadPool(-1), Error);
  EXPECT_THROW(ThreadPool(1 << 20), Error);
}

}  // namespace
}  // namespace specmoe::kernels
