#include "kernels/linear.h"

#include "tests/support/kernel_data.h"

namespace specmoe::kernels {
namespace {

struct Shape {
  std::int64_t rows, inputs, outputs;
};

class LinearTest : public BackendTest {
 protected:
  /// The whole product, computed by `shards` calls as a team would.
  std::vector<float> run(const std::vector<float>& x, const PackedMatrix& weight, std::int64_t rows, int shards,
                         const float* bias = nullptr, const float* residual = nullptr) {
    std::vector<float> out(static_cast<std::size_t>(rows * weight.rows()), NAN);
    const Rows<const float> in = contiguous(x.data(), rows, weight.cols());
    Rows<const float> added;
    if (residual != nullptr) added = contiguous(residual, rows, weight.rows());
    for (int index = 0; index < shards; ++index) {
      packed_linear.on(GetParam())(in, weight, bias, added, view(out, rows, weight.rows()), {index, shards});
    }
    return out;
  }
};

TEST_P(LinearTest, MatchesDoubleReference) {
  const Shape shapes[] = {{0, 8, 16},   {1, 1, 1},    {1, 33, 16},    {2, 7, 5},     {3, 64, 48},   {5, 31, 65},
                          {7, 257, 33}, {16, 96, 80}, {33, 129, 100}, {70, 40, 130}, {9, 17000, 17}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const Shape& shape : shapes) {
      const PackedMatrix weight = random_matrix(shape.outputs, shape.inputs, dtype, GetParam(), 1);
      const std::vector<float> x = random_floats(shape.rows * shape.inputs, 2);
      const std::vector<float> bias = random_floats(shape.outputs, 3);
      const std::vector<float> residual = random_floats(shape.rows * shape.outputs, 4);
      const std::vector<float> out = run(x, weight, shape.rows, 1, bias.data(), residual.data());
      const std::vector<float> seen = product_inputs(x, dtype, GetParam());
      for (std::int64_t t = 0; t < shape.rows; ++t) {
        for (std::int64_t n = 0; n < shape.outputs; ++n) {
          double sum = double{bias[n]} + residual[t * shape.outputs + n];
          for (std::int64_t k = 0; k < shape.inputs; ++k) sum += double{seen[t * shape.inputs + k]} * weight.at(n, k);
          expect_close(out[t * shape.outputs + n], sum, kSums,
                       concat(dtype_name(dtype), " row ", t, " output ", n, " of ", shape.outputs));
        }
      }
    }
  }
}

TEST_P(LinearTest, RowsDoNotDependOnTheirNumberOrOnShards) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const Shape& shape : {Shape{33, 129, 100}, Shape{33, 512, 256}, Shape{33, 48, 8}}) {
      const PackedMatrix weight = random_matrix(shape.outputs, shape.inputs, dtype, GetParam(), 5);
      const std::vector<float> x = random_floats(shape.rows * shape.inputs, 6);
      std::vector<float> alone;
      for (std::int64_t t = 0; t < shape.rows; ++t) {
        const std::vector<float> row(x.begin() + t * shape.inputs, x.begin() + (t + 1) * shape.inputs);
        const std::vector<float> out = run(row, weight, 1, 1);
        alone.insert(alone.end(), out.begin(), out.end());
      }
      for (const std::int64_t rows : kRowCounts) {
        for (const int shards : {1, 2, 3}) {
          const std::vector<float> expected(alone.begin(), alone.begin() + rows * shape.outputs);
          EXPECT_EQ(run(x, weight, rows, shards), expected)
              << dtype_name(dtype) << " T=" << rows << " shards " << shards;
        }
      }
    }
  }
}

TEST_P(LinearTest, WritesOnlyItsOwnColumnsAndMayAddInPlace) {
  const PackedMatrix weight = random_matrix(40, 24, DType::kBFloat16, GetParam(), 7);
  const std::vector<float> x = random_floats(3 * 24, 8);
  const std::vector<float> residual = random_floats(3 * 40, 9);
  const std::vector<float> expected = run(x, weight, 3, 1, nullptr, residual.data());
  // Rows 48 apart: what lies between them must stay.
  std::vector<float> padded(3 * 48, 77.0f);
  for (int t = 0; t < 3; ++t) std::copy_n(residual.begin() + t * 40, 40, padded.begin() + t * 48);
  const Rows<float> out{padded.data(), 3, 40, 48};
  packed_linear.on(GetParam())(contiguous(x.data(), 3, 24), weight, nullptr, out, out, {});
  for (int t = 0; t < 3; ++t) {
    for (int n = 0; n < 48; ++n) EXPECT_EQ(padded[t * 48 + n], n < 40 ? expected[t * 40 + n] : 77.0f) << t << " " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, LinearTest, testing::ValuesIn(kProductBackends), backend_test_name);

}  // namespace
}  // namespace specmoe::kernels
