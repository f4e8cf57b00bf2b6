#include "core/uniforms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace specmoe {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known-answer vectors published with Random123 (kat_vectors, philox4x32 10).
TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxUniforms, EveryPartOfTheAddressMatters) {
  std::set<double> values;
  for (std::uint64_t seed : {0ULL, 1ULL, 1ULL << 40}) {
    for (std::uint64_t sequence : {0ULL, 1ULL, 1ULL << 40}) {
      for (std::uint64_t step : {0ULL, 1ULL}) {
        const PhiloxUniforms uniforms(seed, sequence, step);
        for (int node : {0, 1, 5}) {
          for (Purpose purpose : {Purpose::kDraft, Purpose::kAccept, Purpose::kNext}) {
            for (int slot : {0, 1}) values.insert(uniforms.value({node, purpose, slot}));
          }
        }
      }
    }
  }
  EXPECT_EQ(values.size(), 3U * 3 * 2 * 3 * 3 * 2);
}

TEST(PhiloxUniforms, AreUniform) {
  constexpr int kDraws = 100000;
  double sum = 0.0;
  double squares = 0.0;
  const PhiloxUniforms uniforms(3, 0, 0);
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniforms.value({i, Purpose::kDraft, 0});
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  // Standard errors: 1 / sqrt(12 n) = 9.1e-4 of the mean and sqrt(4/45 / n) = 9.4e-4 of the mean square; 3.3 of each.
  EXPECT_NEAR(sum / kDraws, 0.5, 3.0e-3);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3.0, 3.1e-3);
}

TEST(Uniform, ComparisonIsStrict) {
  const Uniform<double> zero(0.0);
  EXPECT_FALSE(zero.less(0.0, 1.0)) << "a token of probability zero must never pass, not even for u = 0";
  EXPECT_TRUE(zero.less(1e-300, 1.0));
  const Uniform<double> half(0.5);
  EXPECT_FALSE(half.less(1.0, 2.0));
  EXPECT_TRUE(half.less(1.0001, 2.0));
}

}  // namespace
}  // namespace specmoe
