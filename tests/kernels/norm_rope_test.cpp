#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "tests/support/kernel_data.h"

namespace specmoe::kernels {
namespace {

class NormRopeTest : public BackendTest {};

TEST_P(NormRopeTest, RmsNormMatchesDoubleReference) {
  for (const std::int64_t width : {1, 7, 16, 33, 100, 256, 1031}) {
    for (const std::int64_t rows : {0, 1, 3}) {
      std::vector<float> x = random_floats(rows * width, 1, 3.0f);
      const std::vector<float> weight = random_floats(width, 2);
      std::vector<float> out(x.size(), NAN);
      rms_norm.on(GetParam())(view(x, rows, width), weight.data(), 1e-3f, view(out, rows, width));
      for (std::int64_t t = 0; t < rows; ++t) {
        double squares = 0;
        for (std::int64_t d = 0; d < width; ++d) squares += double{x[t * width + d]} * x[t * width + d];
        const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-3);
        for (std::int64_t d = 0; d < width; ++d) {
          expect_close(out[t * width + d], weight[d] * x[t * width + d] * scale, kElementwise,
                       concat(width, " at ", d));
        }
      }
      rms_norm.on(GetParam())(view(x, rows, width), weight.data(), 1e-3f, view(x, rows, width));
      EXPECT_EQ(x, out) << "in place";
    }
  }
}

TEST_P(NormRopeTest, LayerNormMatchesDoubleReference) {
  for (const std::int64_t width : {1, 7, 16, 33, 100, 1031}) {
    std::vector<float> x = random_floats(3 * width, 1, 3.0f);
    for (float& value : x) value += 2.0f;  // a mean worth taking away
    const std::vector<float> weight = random_floats(width, 2);
    const std::vector<float> bias = random_floats(width, 3);
    std::vector<float> out(x.size(), NAN);
    layer_norm.on(GetParam())(view(x, 3, width), weight.data(), bias.data(), 1e-3f, view(out, 3, width));
    for (std::int64_t t = 0; t < 3; ++t) {
      double mean = 0, variance = 0;
      for (std::int64_t d = 0; d < width; ++d) mean += x[t * width + d] / static_cast<double>(width);
      for (std::int64_t d = 0; d < width; ++d)
        variance += std::pow(x[t * width + d] - mean, 2) / static_cast<double>(width);
      for (std::int64_t d = 0; d < width; ++d) {
        const double expected = weight[d] * (x[t * width + d] - mean) / std::sqrt(variance + 1e-3) + bias[d];
        expect_close(out[t * width + d], expected, kSums, concat(width, " at ", d));
      }
    }
    layer_norm.on(GetParam())(view(x, 3, width), weight.data(), bias.data(), 1e-3f, view(x, 3, width));
    EXPECT_EQ(x, out) << "in place";
  }
}

TEST_P(NormRopeTest, RopeMatchesDoubleReferenceAndLeavesTheRestAlone) {
  for (const std::int64_t half : {1, 8, 13, 16, 32, 40}) {
    const std::int64_t head_dim = 2 * half + 2;
    const std::vector<std::int32_t> position = {3, 0, 3, 4};
    const std::vector<float> table = random_floats(5 * 2 * half, 1);
    const std::vector<float> before = random_floats(4 * head_dim, 2);
    std::vector<float> x = before;
    rope.on(GetParam())(view(x, 4, head_dim), table.data(), half, position.data());
    for (std::int64_t t = 0; t < 4; ++t) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double x1 = before[t * head_dim + i], x2 = before[t * head_dim + half + i];
        const double cosine = table[position[t] * 2 * half + i], sine = table[position[t] * 2 * half + half + i];
        expect_close(x[t * head_dim + i], x1 * cosine - x2 * sine, kElementwise, "first half");
        expect_close(x[t * head_dim + half + i], x2 * cosine + x1 * sine, kElementwise, "second half");
      }
      EXPECT_EQ(x[t * head_dim + 2 * half], before[t * head_dim + 2 * half]);
      EXPECT_EQ(x[t * head_dim + 2 * half + 1], before[t * head_dim + 2 * half + 1]);
    }
  }
}

TEST_P(NormRopeTest, RowsDoNotDependOnTheirNumber) {
  constexpr std::int64_t kWidth = 52;
  const std::vector<float> x = random_floats(33 * kWidth, 1);
  const std::vector<float> weight = random_floats(kWidth, 2);
  const std::vector<float> table = random_floats(33 * kWidth, 3);
  std::vector<std::int32_t> position(33);
  for (int t = 0; t < 33; ++t) position[t] = (7 * t) % 33;
  std::vector<float> alone = x;
  for (std::int64_t t = 0; t < 33; ++t) {
    const Rows<float> row = contiguous(alone.data() + t * kWidth, 1, kWidth);
    rms_norm.on(GetParam())(row, weight.data(), 1e-5f, row);
    layer_norm.on(GetParam())(row, weight.data(), x.data(), 1e-5f, row);
    rope.on(GetParam())(row, table.data(), kWidth / 2, position.data() + t);
  }
  for (const std::int64_t rows : kRowCounts) {
    std::vector<float> out(x.begin(), x.begin() + rows * kWidth);
    rms_norm.on(GetParam())(view(out, rows, kWidth), weight.data(), 1e-5f, view(out, rows, kWidth));
    layer_norm.on(GetParam())(view(out, rows, kWidth), weight.data(), x.data(), 1e-5f, view(out, rows, kWidth));
    rope.on(GetParam())(view(out, rows, kWidth), table.data(), kWidth / 2, position.data());
    EXPECT_EQ(out, std::vector<float>(alone.begin(), alone.begin() + rows * kWidth)) << rows;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, NormRopeTest, testing::ValuesIn(kCpuBackends), backend_test_name);

}  // namespace
}  // namespace specmoe::kernels
