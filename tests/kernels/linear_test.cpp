#include "kernels/linear.h"

#include <cmath>
#include <span>

#include "kernels/sampling.h"
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
      packed_linear.on(GetParam())(in, weight, bias, added, view(out, rows, weight.rows()),
                                   weight.share({index, shards}));
    }
    return out;
  }

  /// The argmaxes without the product's rows.
  std::vector<std::int32_t> argmaxes(const std::vector<float>& x, const PackedMatrix& weight, std::int64_t rows,
                                     int shards, const float* bias, const LogitShape& shape) {
    std::vector<BestLogit> best(static_cast<std::size_t>(rows)), part(best);
    for (int index = 0; index < shards; ++index) {
      linear_argmax.on(GetParam())(contiguous(x.data(), rows, weight.cols()), weight, bias, shape, part.data(),
                                   {index, shards});
      for (std::size_t t = 0; t < best.size(); ++t) best[t].offer(part[t]);
    }
    std::vector<std::int32_t> indices;
    for (const BestLogit& one : best) indices.push_back(one.index);
    return indices;
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
  packed_linear.on(GetParam())(contiguous(x.data(), 3, 24), weight, nullptr, out, out, weight.share({}));
  for (int t = 0; t < 3; ++t) {
    for (int n = 0; n < 48; ++n) EXPECT_EQ(padded[t * 48 + n], n < 40 ? expected[t * 40 + n] : 77.0f) << t << " " << n;
  }
}

// Whole rows of logits, then their argmax, against the product that keeps no row; equals and NaN included.
TEST_P(LinearTest, ArgmaxOfTheProductIsThatOfItsRows) {
  const LogitShape shapes[] = {{}, {0.25F, 0.0F}, {1.0F, 0.5F}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const Shape& shape :
         {Shape{1, 33, 1}, Shape{33, 129, 100}, Shape{9, 64, 1000}, Shape{3, 40, 16}, Shape{1, 160, 1000}}) {
      PackedMatrix weight = random_matrix(shape.outputs, shape.inputs, dtype, GetParam(), 1);
      // Outputs 20, 90 and 250 are equal, and large in the first and in half of the other rows.
      const std::vector<float> twin(static_cast<std::size_t>(shape.inputs), 0.5F);
      for (const std::int64_t n : {20, 90, 250}) {
        if (n < shape.outputs) weight.pack_rows(weight_view(twin, 1, shape.inputs), n);
      }
      std::vector<float> x = random_floats(shape.rows * shape.inputs, 2);
      for (float& value : std::span(x).first(static_cast<std::size_t>(shape.inputs))) value = std::abs(value);
      if (shape.rows > 2) x[static_cast<std::size_t>(2 * shape.inputs)] = NAN;
      std::vector<float> bias = random_floats(shape.outputs, 3);
      bias[0] = NAN;
      for (const float* added : {static_cast<const float*>(nullptr), static_cast<const float*>(bias.data())}) {
        std::vector<float> rows = run(x, weight, shape.rows, 1, added);
        for (const LogitShape& how : shapes) {
          std::vector<float> shaped = rows;
          how.apply(shaped.data(), static_cast<std::int64_t>(shaped.size()));
          std::vector<std::int32_t> expected(static_cast<std::size_t>(shape.rows));
          row_argmax.on(Backend::kScalar)(view(shaped, shape.rows, shape.outputs), expected.data());
          for (const int shards : {1, 2, 5}) {
            EXPECT_EQ(argmaxes(x, weight, shape.rows, shards, added, how), expected)
                << dtype_name(dtype) << " " << shape.outputs << " outputs, " << shards << " shards";
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, LinearTest, testing::ValuesIn(kProductBackends), backend_test_name);

}  // namespace
}  // namespace specmoe::kernels
