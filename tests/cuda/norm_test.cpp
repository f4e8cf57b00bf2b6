#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

class DeviceNormTest : public DeviceTest {};

TEST_P(DeviceNormTest, NormsOfBranchesAreTheReferencesAndRowsStandAlone) {
  constexpr std::int64_t kRows = 3;
  constexpr float kEps = 1e-3f, kScale = 0.7f;
  for (const std::int64_t width : {1, 7, 33, 256, 1031}) {
    std::vector<float> x = random_floats(kRows * width, 1, 3.0f);
    for (float& value : x) value += 2.0f;  // a mean to be taken off
    const std::vector<float> weight = random_floats(width, 2), bias = random_floats(width, 3);
    const std::vector<float> stream = random_floats(kRows * width, 4);
    const DeviceArray<float> device_weight = upload(weight), device_bias = upload(bias);
    for (const bool centred : {false, true}) {
      const DeviceNorm norm = {device_weight.data(), centred ? device_bias.data() : nullptr};
      std::vector<float> expected(x.size());
      const Rows<float> to = kernels::view(expected, kRows, width);
      if (centred) {
        kernels::layer_norm.on(Backend::kScalar)(kernels::view(x, kRows, width), weight.data(), bias.data(), kEps, to);
      } else {
        kernels::rms_norm.on(Backend::kScalar)(kernels::view(x, kRows, width), weight.data(), kEps, to);
      }
      // The norm itself in place, or added to the stream.
      const auto run = [&](bool adds, std::int64_t first, std::int64_t rows, std::int64_t most) {
        const auto part = [&](const std::vector<float>& values) {
          return upload_rows({values.begin() + first * width, values.begin() + (first + rows) * width}, rows, width);
        };
        const DeviceRows branch = part(x), out = part(stream);
        if (!adds) {
          layer_norm(branch.view(), count(rows, most), norm, kEps, branch.view(), *stream_);
          return download_rows(branch.view());
        }
        add_normed(branch.view(), count(rows, most), norm, kEps, kScale, out.view(), *stream_);
        return download_rows(out.view());
      };
      for (const bool adds : {false, true}) {
        const std::vector<float> got = run(adds, 0, kRows, 8);
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double wanted = adds ? stream[i] + double{kScale} * expected[i] : expected[i];
          expect_close(got[i], wanted, {2e-6, 2e-5}, concat("width ", width, centred ? " centred" : "", " at ", i));
        }
        for (std::int64_t t = 0; t < kRows; ++t) {
          EXPECT_EQ(run(adds, t, 1, 1), std::vector<float>(got.begin() + t * width, got.begin() + (t + 1) * width));
        }
      }
    }
  }
}

TEST_P(DeviceNormTest, EmbeddingsAreRowsOfATableOrOfTheHead) {
  constexpr std::int64_t kVocab = 37, kWidth = 43;
  const std::vector<std::int32_t> tokens = {0, 36, 16, 15, 7};
  const DeviceArray<std::int32_t> device_tokens = upload(tokens);
  const auto rows = static_cast<std::int64_t>(tokens.size());
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Matrix head = upload_matrix(random_matrix(kVocab, kWidth, dtype, Backend::kScalar, 1));
    const DeviceRows out(rows, kWidth);
    embed(head.device(), device_tokens.data(), count(rows, 8), 2.5f, out.view(), *stream_);
    const std::vector<float> got = download_rows(out.view());
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t d = 0; d < kWidth; ++d) {
        EXPECT_EQ(got[t * kWidth + d], head.host.at(tokens[t], d) * 2.5f);
      }
    }
  }
  const std::vector<float> table = random_floats(kVocab * kWidth, 2);
  const DeviceArray<float> device_table = upload(table);
  const DeviceRows out(rows, kWidth);
  embed(device_table.data(), DType::kFloat32, device_tokens.data(), count(rows, 8), 1.0f, out.view(), *stream_);
  const std::vector<float> got = download_rows(out.view());
  for (std::int64_t i = 0; i < rows * kWidth; ++i) {
    EXPECT_EQ(got[i], table[tokens[i / kWidth] * kWidth + i % kWidth]);
  }
}

TEST_P(DeviceNormTest, LogitsAreShaped) {
  constexpr std::int64_t kRows = 2, kVocab = 301;
  const std::vector<float> logits = random_floats(kRows * kVocab, 1, 60.0f);
  for (const LogitShape& shape :
       {LogitShape{}, LogitShape{0.25f, 0.0f}, LogitShape{1.0f, 30.0f}, LogitShape{3.0f, 9.0f}}) {
    std::vector<float> expected = logits;
    shape.apply(expected.data(), kRows * kVocab);
    const DeviceRows device = upload_rows(logits, kRows, kVocab);
    shape_logits(device.view(), count(kRows, 4), shape, *stream_);
    const std::vector<float> got = download_rows(device.view());
    for (std::size_t i = 0; i < got.size(); ++i) expect_close(got[i], expected[i], kElementwise, concat("logit ", i));
  }
}

SPECMOE_DEVICE_TESTS(DeviceNormTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
