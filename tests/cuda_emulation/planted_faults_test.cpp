#include "tests/cuda_emulation/planted_faults.h"

#include <gtest/gtest.h>

#include "tests/cuda_emulation/schedule.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr std::uint64_t kSeeds[] = {1, 2, 3, 4};

class PlantedFaultTest : public testing::TestWithParam<Planted> {
 protected:
  void TearDown() override { cuda_emulation::set_schedule(1); }
};

TEST_P(PlantedFaultTest, TheRightKernelRunsCleanUnderEverySchedule) {
  for (const std::uint64_t seed : kSeeds) {
    cuda_emulation::set_schedule(seed);
    EXPECT_EQ(GetParam().run(false), GetParam().expected) << "seed " << seed;
  }
}

TEST_P(PlantedFaultTest, TheFaultIsSeenUnderEverySchedule) {
  if (GetParam().race && !cuda_emulation::watches_races()) GTEST_SKIP() << "this build does not watch races";
  const cuda_emulation::QuietRaces quiet;
  for (const std::uint64_t seed : kSeeds) {
    cuda_emulation::set_schedule(seed);
    bool seen = false;
    try {
      seen = GetParam().run(true) != GetParam().expected;
    } catch (const cuda_emulation::Fault& fault) {
      seen = true;
      if (seed == kSeeds[0]) RecordProperty("fault", fault.what());
    }
    EXPECT_TRUE(seen) << "seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, PlantedFaultTest, testing::ValuesIn(planted_faults()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace specmoe::kernels::cuda
