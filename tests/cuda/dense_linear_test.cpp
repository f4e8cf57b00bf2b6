#include "kernels/cuda/dense_linear.h"

#include "kernels/activate.h"
#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kRows = 8;

class DenseLinearTest : public DeviceTest {
 protected:
  std::vector<float> run(DenseLinear& dense, const std::vector<float>& x, const Matrix& weight,
                         const std::vector<float>& bias, const std::vector<float>& residual) {
    const DeviceRows in = upload_rows(x, kRows, weight.host.cols());
    const DeviceRows out = upload_rows(residual, kRows, weight.host.rows());  // in place
    const DeviceArray<float> device_bias = upload(bias);
    dense.multiply(in.view(), weight.device(), device_bias.data(), out.view(), out.view());
    return download_rows(out.view());
  }
};

TEST_P(DenseLinearTest, MatchesDoubleReference) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    std::vector<Matrix> weights;
    std::vector<DeviceMatrix> views;
    for (const auto& [outputs, inputs] : {std::pair{40, 72}, std::pair{5, 7}, std::pair{33, 24}, std::pair{16, 16}}) {
      weights.push_back(upload_matrix(random_matrix(outputs, inputs, dtype, Backend::kScalar, 1)));
      views.push_back(weights.back().device());
    }
    DenseLinear dense(kRows, views, *stream_);
    for (const Matrix& weight : weights) {
      const std::int64_t outputs = weight.host.rows(), inputs = weight.host.cols();
      const std::vector<float> x = random_floats(kRows * inputs, 2), bias = random_floats(outputs, 3);
      const std::vector<float> residual = random_floats(kRows * outputs, 4);
      const std::vector<float> got = run(dense, x, weight, bias, residual);
      for (std::int64_t t = 0; t < kRows; ++t) {
        for (std::int64_t n = 0; n < outputs; ++n) {
          double sum = double{bias[n]} + residual[t * outputs + n];
          for (std::int64_t k = 0; k < inputs; ++k) sum += weight.host.at(n, k) * double{x[t * inputs + k]};
          expect_close(got[t * outputs + n], sum, kSums,
                       concat(dtype_name(dtype), " [", outputs, ", ", inputs, "] row ", t, " at ", n));
        }
      }
    }
  }
}

// With one input per sum nothing is rounded but the parts' sum: the three parts are the float32 value.
TEST_P(DenseLinearTest, InputsMeetBfloat16WeightsUnrounded) {
  PackedMatrix one(1, 1, DType::kBFloat16, Backend::kScalar);
  const std::vector<float> unit = {1.0f};
  one.pack_rows(weight_view(unit, 1, 1));
  const Matrix weight = upload_matrix(std::move(one));
  const DeviceMatrix view = weight.device();
  DenseLinear dense(kRows, std::span(&view, 1), *stream_);
  const std::vector<float> x = random_floats(kRows, 5);
  EXPECT_EQ(run(dense, x, weight, {0.0f}, std::vector<float>(kRows, 0.0f)), x);
}

// Every row's feed-forward part: gate and up in panels that take turns, then down with a weight for each row.
TEST_P(DenseLinearTest, FeedForwardMatchesDoubleReference) {
  constexpr int kInputs = 24, kWidth = 37;
  const std::vector<float> x = random_floats(kRows * kInputs, 1), bias = random_floats(2 * kWidth, 2);
  const std::vector<float> weights = random_floats(kRows, 3), residual = random_floats(kRows * kInputs, 4);
  const auto gate = random_floats(kWidth * kInputs, 5, 0.4f), up = random_floats(kWidth * kInputs, 6, 0.4f);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    PackedMatrix packed(96, kInputs, dtype, Backend::kScalar);
    packed.pack_gate_up(weight_view(gate, kWidth, kInputs), weight_view(up, kWidth, kInputs));
    const Matrix gate_up = upload_matrix(std::move(packed));
    const Matrix down = upload_matrix(random_matrix(kInputs, kWidth, dtype, Backend::kScalar, 7));
    const std::vector<DeviceMatrix> views = {gate_up.device(), down.device()};
    DenseLinear dense(kRows, views, *stream_);
    const DeviceRows in = upload_rows(x, kRows, kInputs), out = upload_rows(residual, kRows, kInputs);
    const DeviceRows hidden(kRows, kWidth);
    for (const Activation& activation : {Activation{}, Activation{Activation::Kind::kClamped, 1.7f, 0.5f}}) {
      dense.multiply_gate_up(in.view(), gate_up.device(), upload(bias).data(), activation, hidden.view());
      const std::vector<float> got = download_rows(hidden.view());
      for (int i = 0; i < kRows * kWidth; ++i) {
        const std::int64_t t = i / kWidth, n = i % kWidth, row = n / 16 * 32 + n % 16;
        double of_gate = bias[n], of_up = bias[kWidth + n];
        for (int k = 0; k < kInputs; ++k) {
          of_gate += gate_up.host.at(row, k) * double{x[t * kInputs + k]};
          of_up += gate_up.host.at(row + 16, k) * double{x[t * kInputs + k]};
        }
        const float expected = activate(activation, static_cast<float>(of_gate), static_cast<float>(of_up));
        expect_close(got[i], expected, kSums, concat(dtype_name(dtype), " hidden ", i));
      }
    }
    dense.multiply(hidden.view(), down.device(), nullptr, out.view(), out.view(), upload(weights).data());
    const std::vector<float> inner = download_rows(hidden.view()), got = download_rows(out.view());
    for (int i = 0; i < kRows * kInputs; ++i) {
      double sum = 0;
      for (int k = 0; k < kWidth; ++k) sum += down.host.at(i % kInputs, k) * double{inner[i / kInputs * kWidth + k]};
      expect_close(got[i], residual[i] + weights[i / kInputs] * sum, kSums, concat(dtype_name(dtype), " out ", i));
    }
  }
}

TEST_P(DenseLinearTest, RefusesAnotherNumberOfRowsAndMatricesItWasNotMadeFor) {
  const Matrix small = upload_matrix(random_matrix(16, 16, DType::kFloat32, Backend::kScalar, 1));
  const Matrix other = upload_matrix(random_matrix(64, 16, DType::kFloat32, Backend::kScalar, 1));
  const DeviceMatrix view = small.device();
  DenseLinear dense(kRows, std::span(&view, 1), *stream_);
  const DeviceRows x(kRows, 64), out(kRows, 64);
  EXPECT_THROW(dense.multiply(x.first(kRows - 1), small.device(), nullptr, {}, out.view()), Error);
  EXPECT_THROW(dense.multiply_gate_up(x.view(), small.device(), nullptr, {}, out.view()), Error);
  EXPECT_THROW(dense.multiply(x.view(), other.device(), nullptr, {}, out.view()), Error);
}

SPECMOE_DEVICE_TESTS(DenseLinearTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
