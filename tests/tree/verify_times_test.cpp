#include "tree/verify_times.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/tree_policy.h"
#include "kernels/check.h"

namespace specmoe::testing {
namespace {

TEST(VerifyTimes, GoInStraightLinesBetweenMeasuredSizes) {
  const VerifyTimes times("test", "2:10/4:12.5/8:1e2");
  EXPECT_EQ(times.at(1), 10);
  EXPECT_EQ(times.at(2), 10);
  EXPECT_EQ(times.at(3), 11.25);
  EXPECT_EQ(times.at(4), 12.5);
  EXPECT_EQ(times.at(8), 100);
  EXPECT_EQ(times.at(9), std::numeric_limits<double>::infinity());
}

TEST(VerifyTimes, RefusesWhatIsNoMeasurement) {
  for (const char* text : {"3", "1:2/", "/1:2", "1:2//3:4", "1:2 /3:4", "1.5:2", "x:1", "1:x", "1:2:3", "4:2/3:3",
                           "4:2/4:3", "0:1", "-1:2", "1:0", "1:-2", "1:inf", "1:nan"}) {
    EXPECT_THROW(VerifyTimes("test", text), Error) << text;
    EXPECT_THROW(tree_policies().create(std::string("sequoia(verify_times=") + text + ")"), Error) << text;
    EXPECT_THROW(tree_policies().create(std::string("expert_aware(verify_times=") + text + ")"), Error) << text;
  }
}

}  // namespace
}  // namespace specmoe::testing
