#include <bit>
#include <cstring>

#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

struct Shape {
  std::int64_t rows, inputs, outputs;
};

class PanelUploadTest : public DeviceTest {};

/// The device reads pair or input `line` of output `output` where the header says; it comes there in pieces.
TEST_P(PanelUploadTest, EveryElementIsWhereTheHeaderSays) {
  constexpr std::int64_t kOutputs = 37, kInputs = 43;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const PackedMatrix matrix = random_matrix(kOutputs, kInputs, dtype, Backend::kScalar, 1);
    const std::int64_t panel_bytes = device_panel_bytes(kInputs, dtype);
    ASSERT_EQ(device_bytes(matrix), static_cast<std::size_t>(matrix.panels() * panel_bytes));
    for (const std::size_t at_once : {std::size_t{1}, 2 * matrix.panel_bytes(), PanelUpload::kBytes}) {
      const DeviceArray<std::byte> device(device_bytes(matrix));
      PanelUpload(*stream_, at_once).put(matrix, device.data());
      const std::vector<std::byte> bytes = download(device.data(), device.size());
      for (std::int64_t n = 0; n < kOutputs; ++n) {
        for (std::int64_t k = 0; k < kInputs; ++k) {
          const std::byte* panel = bytes.data() + n / 16 * panel_bytes;
          const std::int64_t o = n % 16;
          if (dtype == DType::kFloat32) {
            float value;
            std::memcpy(&value, panel + k / 8 * 512 + (o + k % 8 / 4 * 16) * 16 + k % 4 * 4, sizeof value);
            ASSERT_EQ(value, matrix.at(n, k));
          } else {
            const std::int64_t pair = k % 16 / 2;
            const std::int64_t lane = 4 * (o % 8) + pair % 4;
            std::uint16_t bits;
            std::memcpy(&bits, panel + k / 16 * 512 + lane * 16 + (pair / 4 * 2 + o / 8) * 4 + k % 2 * 2, sizeof bits);
            ASSERT_EQ(std::bit_cast<float>(std::uint32_t{bits} << 16), matrix.at(n, k));
          }
        }
      }
      // What is no input is zero.
      const auto zeros = static_cast<std::int64_t>(std::count(bytes.begin(), bytes.end(), std::byte{0}));
      EXPECT_GE(zeros, static_cast<std::int64_t>(bytes.size()) -
                           kOutputs * kInputs * static_cast<std::int64_t>(dtype_bytes(dtype)));
    }
  }
}

SPECMOE_DEVICE_TESTS(PanelUploadTest);

class DeviceLinearTest : public DeviceTest {
 protected:
  std::vector<float> run(const std::vector<float>& x, const Matrix& weight, std::int64_t rows, std::int64_t most,
                         const float* bias = nullptr, const std::vector<float>* residual = nullptr) {
    const std::int64_t inputs = weight.host.cols(), outputs = weight.host.rows();
    const DeviceRows in = upload_rows(x, rows, inputs);
    const DeviceRows out = residual != nullptr ? upload_rows(*residual, rows, outputs) : DeviceRows(rows, outputs);
    packed_linear(in.view(), count(rows, most), weight.device(), bias,
                  residual != nullptr ? Rows<const float>(out.view()) : Rows<const float>{}, out.view(), *stream_);
    return download_rows(out.view());
  }
};

TEST_P(DeviceLinearTest, MatchesDoubleReference) {
  const Shape shapes[] = {{1, 1, 1}, {1, 33, 16}, {2, 7, 5}, {5, 31, 65}, {7, 257, 33}, {16, 96, 40}, {33, 129, 20}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& shape : shapes) {
      const Matrix weight = upload_matrix(random_matrix(shape.outputs, shape.inputs, dtype, Backend::kScalar, 1));
      const std::vector<float> x = random_floats(shape.rows * shape.inputs, 2);
      const std::vector<float> bias = random_floats(shape.outputs, 3);
      const std::vector<float> residual = random_floats(shape.rows * shape.outputs, 4);
      const DeviceArray<float> device_bias = upload(bias);
      const std::vector<float> out = run(x, weight, shape.rows, shape.rows, device_bias.data(), &residual);
      for (std::int64_t t = 0; t < shape.rows; ++t) {
        for (std::int64_t n = 0; n < shape.outputs; ++n) {
          double sum = double{bias[n]} + residual[t * shape.outputs + n];
          for (std::int64_t k = 0; k < shape.inputs; ++k) sum += double{x[t * shape.inputs + k]} * weight.host.at(n, k);
          expect_close(out[t * shape.outputs + n], sum, kSums,
                       concat(dtype_name(dtype), " row ", t, " output ", n, " of ", shape.outputs));
        }
      }
    }
  }
}

// Also when the grid is sized for more rows than there are, as in a recorded graph.
TEST_P(DeviceLinearTest, RowsDoNotDependOnTheirNumber) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Shape shape = {33, 148, 20};
    const Matrix weight = upload_matrix(random_matrix(shape.outputs, shape.inputs, dtype, Backend::kScalar, 5));
    const std::vector<float> x = random_floats(shape.rows * shape.inputs, 6);
    std::vector<float> alone;
    for (std::int64_t t = 0; t < shape.rows; ++t) {
      const std::vector<float> row(x.begin() + t * shape.inputs, x.begin() + (t + 1) * shape.inputs);
      const std::vector<float> out = run(row, weight, 1, 1);
      alone.insert(alone.end(), out.begin(), out.end());
    }
    for (const std::int64_t rows : kRowCounts) {
      const std::vector<float> expected(alone.begin(), alone.begin() + rows * shape.outputs);
      const std::vector<float> in(x.begin(), x.begin() + rows * shape.inputs);
      EXPECT_EQ(run(in, weight, rows, rows), expected) << dtype_name(dtype) << " T=" << rows;
      EXPECT_EQ(run(in, weight, rows, 33), expected) << dtype_name(dtype) << " T=" << rows << " of 33";
    }
  }
}

SPECMOE_DEVICE_TESTS(DeviceLinearTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
