#include "kernels/sampling.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/support/kernel_data.h"

namespace specmoe::kernels {
namespace {

class SamplingTest : public BackendTest {
 protected:
  std::vector<float> probs(const std::vector<float>& logits, float temperature, std::int64_t top_k, float top_p,
                           float min_p = 0.0f) {
    std::vector<float> out(logits.size(), NAN);
    std::vector<std::int32_t> scratch(logits.size());
    sampling_probs.on(GetParam())(logits.data(), static_cast<std::int64_t>(logits.size()),
                                  {temperature, top_k, top_p, min_p}, out.data(), scratch.data());
    return out;
  }
};

std::vector<double> reference(const std::vector<float>& logits, double temperature, std::size_t top_k, double top_p,
                              double min_p) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (top_k > 0) order.resize(std::min(order.size(), top_k));
  std::vector<double> result(logits.size(), 0.0);
  double total = 0;
  for (const std::size_t i : order) total += result[i] = std::exp((double{logits[i]} - logits[order[0]]) / temperature);
  if (top_p < 1) {
    double held = 0;
    std::size_t kept = 0;
    while (kept < order.size() && held < top_p * total) held += result[order[kept++]];
    for (std::size_t i = kept; i < order.size(); ++i) result[order[i]] = 0;
    total = held;
  }
  for (const std::size_t i : order) {  // the largest is e^0
    if (result[i] >= min_p) continue;
    total -= result[i];
    result[i] = 0;
  }
  for (double& p : result) p /= total;
  return result;
}

TEST_P(SamplingTest, ProbabilitiesMatchDoubleReference) {
  for (const std::int64_t vocab : {1, 5, 16, 17, 100, 1003, 5000}) {
    const std::vector<float> logits = random_floats(vocab, 1, 9.0f);
    for (const float temperature : {0.3f, 1.0f, 2.0f}) {
      for (const std::int64_t top_k : {0, 1, 7, 50, 100000}) {
        for (const auto& [top_p, min_p] : {std::pair{1.0f, 0.0f},
                                           {0.9f, 0.0f},
                                           {0.31f, 0.0f},
                                           {1e-6f, 0.0f},
                                           {1.0f, 0.07f},
                                           {1.0f, 1.0f},
                                           {0.9f, 0.07f},
                                           {0.5f, 1e-9f}}) {
          const std::vector<float> got = probs(logits, temperature, top_k, top_p, min_p);
          const std::vector<double> expected =
              reference(logits, temperature, static_cast<std::size_t>(top_k), top_p, min_p);
          double sum = 0;
          for (std::size_t i = 0; i < got.size(); ++i) {
            expect_close(got[i], expected[i], {1e-9, 3e-5},
                         concat("V=", vocab, " k=", top_k, " p=", top_p, " min ", min_p, " at ", i));
            sum += got[i];
          }
          expect_close(sum, 1.0, {1e-5, 0}, "sum");
        }
      }
    }
  }
}

TEST_P(SamplingTest, TiesKeepTheLowerIndex) {
  const std::vector<float> logits = {0, 2, 1, 2, 1, 2, 1};
  const std::vector<float> two = probs(logits, 1.0f, 2, 1.0f);
  EXPECT_EQ(two, (std::vector<float>{0, 0.5f, 0, 0.5f, 0, 0, 0}));
  const std::vector<float> four = probs(logits, 1.0f, 4, 1.0f);
  EXPECT_GT(four[2], 0.0f);
  EXPECT_EQ(four[4], 0.0f);
  EXPECT_EQ(four[6], 0.0f);
  const std::vector<float> equal(1000, 0.25f);
  const std::vector<float> half = probs(equal, 1.0f, 0, 0.4995f);
  EXPECT_EQ(std::count(half.begin(), half.end(), 0.0f), 500);
  EXPECT_GT(half[499], 0.0f);
  for (const std::int64_t k : {1, 20, 31, 32, 999}) {
    const std::vector<float> first = probs(equal, 1.0f, k, 1.0f);
    EXPECT_EQ(std::count(first.begin(), first.begin() + k, 0.0f), 0) << k;
    EXPECT_EQ(std::count(first.begin() + k, first.end(), 0.0f), 1000 - k) << k;
  }
  std::vector<float> last(1000, 0.0f);  // what is past the last whole part counts as well
  last[999] = 1.0f;
  EXPECT_EQ(probs(last, 1.0f, 1, 1.0f)[999], 1.0f);
}

/// Where softmax meets a NaN all is NaN; no cut may make a row of it that looks whole.
TEST_P(SamplingTest, NanIsNotCutAway) {
  std::vector<float> logits = random_floats(1003, 1, 9.0f);
  logits[500] = NAN;
  EXPECT_TRUE(std::isnan(probs(logits, 1.0f, 0, 1.0f)[0]));
  EXPECT_TRUE(std::isnan(probs(logits, 1.0f, 20, 1.0f)[0]));
  EXPECT_TRUE(std::isnan(probs(logits, 1.0f, 0, 0.9f)[0]));
  EXPECT_TRUE(std::isnan(probs(logits, 1.0f, 0, 1.0f, 0.05f)[0]));
  EXPECT_TRUE(std::isnan(probs(logits, 1.0f, 20, 0.9f, 0.05f)[0]));
}

TEST_P(SamplingTest, ExtremeLogitsStayFinite) {
  const std::vector<float> got = probs({-1e30f, 300.0f, 299.0f, -INFINITY, -3e38f}, 0.01f, 0, 1.0f);
  EXPECT_EQ(got[1], 1.0f);
  EXPECT_EQ(got[0] + got[3] + got[4], 0.0f);
  const std::vector<float> broken = probs({1.0f, NAN, 2.0f}, 1.0f, 0, 1.0f);
  EXPECT_TRUE(std::isnan(broken[0])) << "a NaN must be seen by the caller";
}

/// A token of logit -inf has probability 0, to the bit, and the rest the law of a vocabulary without it: even where a
/// cut asks for more tokens than there are.
TEST_P(SamplingTest, ImpossibleTokensHaveNoProbability) {
  for (const std::int64_t vocab : {5, 17, 64, 1003, 5000}) {
    for (const std::int64_t possible_every : {2, 7, 300}) {
      std::vector<float> logits = random_floats(vocab, 1, 9.0f);
      for (std::int64_t i = 0; i < vocab; ++i) {
        if (i % possible_every != possible_every / 2 && i != 1) logits[i] = -INFINITY;
      }
      for (const float temperature : {0.3f, 1.0f, 50.0f}) {
        for (const std::int64_t top_k : {0, 1, 7, 600}) {
          for (const auto& [top_p, min_p] :
               {std::pair{1.0f, 0.0f}, {0.9f, 0.0f}, {0.97f, 0.0f}, {1.0f, 0.07f}, {0.9f, 1e-30f}}) {
            const std::vector<float> got = probs(logits, temperature, top_k, top_p, min_p);
            const std::vector<double> expected =
                reference(logits, temperature, static_cast<std::size_t>(top_k), top_p, min_p);
            double sum = 0;
            for (std::size_t i = 0; i < got.size(); ++i) {
              const std::string where =
                  concat("V=", vocab, " k=", top_k, " p=", top_p, " min ", min_p, " T=", temperature, " at ", i);
              if (logits[i] == -INFINITY) {
                EXPECT_EQ(got[i], 0.0f) << where;
              }
              expect_close(got[i], expected[i], {1e-9, 3e-5}, where);
              sum += got[i];
            }
            expect_close(sum, 1.0, {1e-5, 0}, "sum");
          }
        }
      }
    }
  }
}

TEST_P(SamplingTest, ArgmaxTakesTheLowerOfEqualAndNeverNan) {
  for (const std::int64_t vocab : {1, 9, 33, 64, 1000}) {
    for (const std::int64_t at : {std::int64_t{0}, vocab / 2, vocab - 1}) {
      std::vector<float> x = random_floats(3 * vocab, 1);
      x[at] = x[vocab - 1] = 3.0f;
      std::fill(x.begin() + vocab, x.begin() + 2 * vocab, NAN);
      x[2 * vocab + at] = -INFINITY;
      std::vector<std::int32_t> argmax(3, -7);
      row_argmax.on(GetParam())(view(x, 3, vocab), argmax.data());
      EXPECT_EQ(argmax[0], at);
      EXPECT_EQ(argmax[1], -1);
      EXPECT_EQ(argmax[2], std::max_element(x.begin() + 2 * vocab, x.end()) - (x.begin() + 2 * vocab));
    }
  }
  std::vector<float> x = {NAN, -INFINITY, NAN, -5.0f, NAN, -5.0f, NAN, NAN, NAN, -INFINITY};
  std::int32_t argmax = 0;
  row_argmax.on(GetParam())(view(x, 1, 10), &argmax);
  EXPECT_EQ(argmax, 3);
  std::fill(x.begin() + 2, x.end(), -INFINITY);
  row_argmax.on(GetParam())(view(x, 1, 10), &argmax);
  EXPECT_EQ(argmax, 1);
}

INSTANTIATE_TEST_SUITE_P(Cpu, SamplingTest, testing::ValuesIn(kCpuBackends), backend_test_name);

}  // namespace
}  // namespace specmoe::kernels
