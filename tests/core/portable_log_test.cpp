#include "core/portable_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace specmoe {
namespace {

TEST(PortableLog, IsTheLogarithm) {
  double worst = 0.0;
  const auto check = [&worst](double x) {
    const double expected = std::log(x);
    worst = std::max(worst, std::abs(portable_log(x) - expected) / std::max(1.0, std::abs(expected)));
  };
  for (int i = 1; i <= 20'000; ++i) check(i / 10'000.0);
  for (int exponent = -1022; exponent < 1023; ++exponent) check(std::ldexp(1.0 + 0.37 * (exponent & 1), exponent));
  for (const double x : {std::sqrt(0.5), std::sqrt(2.0), 1e-300, std::numeric_limits<double>::min()}) check(x);
  EXPECT_LT(worst, 4e-16);
  EXPECT_EQ(portable_log(1.0), 0.0);
}

// Scores are compared: a likelier token never scores lower.
TEST(PortableLog, NeverFalls) {
  for (double x = 1e-6; x < 1.0; x *= 1.0001)
    EXPECT_LE(portable_log(x), portable_log(std::nextafter(x * 1.00000001, 1.0)));
  float q = 0.001F;
  for (int i = 0; i < 100'000; ++i) {
    const float next = std::nextafter(q, 1.0F);
    ASSERT_LT(portable_log(static_cast<double>(q)), portable_log(static_cast<double>(next))) << q;
    q = next;
  }
}

}  // namespace
}  // namespace specmoe
