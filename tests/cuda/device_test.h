#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/panel_upload.h"
#include "kernels/element.h"
#include "tests/support/kernel_data.h"
#ifdef SPECMOE_CUDA_EMULATION
#include "tests/cuda_emulation/schedule.h"
#endif

/// Tests of the device kernels. They are compiled twice: against the emulation, where the parameter is the seed of the
/// orders in which threads run, and against CUDA, where they are skipped on a machine without a device.
namespace specmoe::kernels::cuda {

#ifdef SPECMOE_CUDA_EMULATION
inline const int kSchedules[] = {1};
#else
inline const int kSchedules[] = {0};
#endif

/// Rows on the device, `stride` floats apart: even, so that pairs of inputs are aligned.
class DeviceRows {
 public:
  DeviceRows(std::int64_t rows, std::int64_t cols)
      : rows_(rows), cols_(cols), stride_((cols + 5) / 2 * 2), data_(static_cast<std::size_t>(rows * stride_ + 1)) {}
  Rows<float> view() const { return {data_.data(), rows_, cols_, stride_}; }
  Rows<const float> first(std::int64_t rows) const { return {data_.data(), rows, cols_, stride_}; }

 private:
  std::int64_t rows_, cols_, stride_;
  DeviceArray<float> data_;
};

class DeviceTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << "this machine has no CUDA device";
#ifdef SPECMOE_CUDA_EMULATION
    cuda_emulation::set_schedule(static_cast<std::uint64_t>(GetParam()));
#endif
    stream_ = std::make_unique<Stream>();
  }

  template <class T>
  DeviceArray<T> upload(const std::vector<T>& values) {
    DeviceArray<T> array(std::max<std::size_t>(1, values.size()));
    stream_->copy(array.data(), values.data(), values.size() * sizeof(T));
    stream_->synchronize();
    return array;
  }
  template <class T>
  std::vector<T> download(const T* from, std::size_t count) {
    std::vector<T> values(count);
    stream_->copy(values.data(), from, count * sizeof(T));
    stream_->synchronize();
    return values;
  }
  /// values [rows, cols], packed.
  DeviceRows upload_rows(const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
    DeviceRows device(rows, cols);
    const Rows<float> view = device.view();
    for (std::int64_t t = 0; t < rows; ++t) {
      stream_->copy(view.row(t), values.data() + t * cols, static_cast<std::size_t>(cols) * sizeof(float));
    }
    stream_->synchronize();
    return device;
  }
  std::vector<float> download_rows(const Rows<float>& rows) {
    std::vector<float> values;
    for (std::int64_t t = 0; t < rows.rows; ++t) {
      const auto row = download(rows.row(t), static_cast<std::size_t>(rows.cols));
      values.insert(values.end(), row.begin(), row.end());
    }
    return values;
  }
  /// Keys or values as a cache of this type holds them.
  DeviceArray<std::byte> upload_cached(const std::vector<float>& values, DType dtype) {
    std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const BFloat16 rounded = {float_to_bfloat16(values[i])};
      const void* from = dtype == DType::kBFloat16 ? static_cast<const void*>(&rounded) : &values[i];
      std::memcpy(bytes.data() + i * dtype_bytes(dtype), from, dtype_bytes(dtype));
    }
    return upload(bytes);
  }
  /// Elements [first, first + count) of such a cache.
  std::vector<float> download_cached(const DeviceArray<std::byte>& cache, DType dtype, std::size_t first,
                                     std::size_t count) {
    if (dtype == DType::kFloat32) return download(reinterpret_cast<const float*>(cache.data()) + first, count);
    std::vector<float> values;
    for (const BFloat16 x : download(reinterpret_cast<const BFloat16*>(cache.data()) + first, count)) {
      values.push_back(bfloat16_to_float(x.bits));
    }
    return values;
  }
  static std::vector<float> rounded_to_bfloat16(std::vector<float> values) {
    for (float& x : values) x = bfloat16_to_float(float_to_bfloat16(x));
    return values;
  }
  RowCount count(std::int64_t rows, std::int64_t most) {
    counts_.push_back(upload(std::vector<std::int32_t>{static_cast<std::int32_t>(rows)}));
    return {static_cast<int>(most), counts_.back().data()};
  }
  /// A matrix as the device holds it; the host's copy stays for its elements.
  struct Matrix {
    PackedMatrix host;
    DeviceArray<std::byte> bytes;
    DeviceMatrix device() const { return device_matrix(host, bytes.data()); }
  };
  static DeviceMatrix device_matrix(const PackedMatrix& host, const std::byte* data) {
    return {data, host.rows(), host.cols(), device_panel_bytes(host.cols(), host.dtype()), host.dtype()};
  }
  DeviceArray<std::byte> upload_panels(const PackedMatrix& matrix) {
    DeviceArray<std::byte> panels(std::max<std::size_t>(1, device_bytes(matrix)));
    PanelUpload(*stream_).put(matrix, panels.data());
    return panels;
  }
  Matrix upload_matrix(PackedMatrix matrix) {
    DeviceArray<std::byte> bytes = upload_panels(matrix);
    return {std::move(matrix), std::move(bytes)};
  }

  std::unique_ptr<Stream> stream_;
  std::vector<DeviceArray<std::int32_t>> counts_;
};

inline std::string schedule_name(const testing::TestParamInfo<int>& info) {
  return "schedule_" + std::to_string(info.param);
}

#define SPECMOE_DEVICE_TESTS(Fixture)                                                                  \
  INSTANTIATE_TEST_SUITE_P(Device, Fixture, ::testing::ValuesIn(::specmoe::kernels::cuda::kSchedules), \
                           ::specmoe::kernels::cuda::schedule_name)

}  // namespace specmoe::kernels::cuda
