#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

namespace specmoe::kernels {

/// The one table of tolerances: |got - reference| <= absolute + relative * |reference|, by what limits the precision.
struct Tolerance {
  double absolute;
  double relative;
};
inline constexpr Tolerance kSums = {2e-5, 2e-5};         // float32 sums of up to some thousand products of size 1
inline constexpr Tolerance kElementwise = {1e-6, 1e-5};  // a few float32 operations
inline constexpr Tolerance kProbability = {1e-9, 1e-5};  // exponentials over a sum

inline void expect_close(double got, double reference, Tolerance tolerance, const std::string& where) {
  EXPECT_LE(std::abs(got - reference), tolerance.absolute + tolerance.relative * std::abs(reference))
      << where << ": got " << got << ", reference " << reference;
}

/// Deterministic values: uniform in [-scale, scale).
inline std::vector<float> random_floats(std::int64_t n, std::uint32_t seed, float scale = 1.0f) {
  std::mt19937 bits(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = scale * (static_cast<float>(bits() >> 8) * (2.0f / 16777216.0f) - 1.0f);
  return values;
}

inline Rows<float> view(std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  return contiguous(values.data(), rows, cols);
}

inline WeightView weight_view(const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  return {values.data(), DType::kFloat32, rows, cols};
}

inline PackedMatrix random_matrix(std::int64_t rows, std::int64_t cols, DType dtype, Backend backend,
                                  std::uint32_t seed) {
  PackedMatrix matrix(rows, cols, dtype, backend);
  const std::vector<float> values =
      random_floats(rows * cols, seed, 2.0f / std::sqrt(static_cast<float>(std::max<std::int64_t>(1, cols))));
  matrix.pack_rows(weight_view(values, rows, cols));
  return matrix;
}

/// Inputs as a product with weights of `dtype` sees them: rounded to bfloat16 where the back end's instruction does.
inline std::vector<float> product_inputs(std::vector<float> x, DType dtype, Backend backend) {
  if (!rounds_inputs(backend, dtype)) return x;
  const auto count = static_cast<std::int64_t>(x.size());
  PackedMatrix rounded(1, count, DType::kBFloat16, Backend::kScalar);
  rounded.pack_rows(weight_view(x, 1, count));
  rounded.read_row(0, x.data());
  return x;
}

/// The back ends that an emulation stands in for, by number.
inline bool emulated[kBackendCount] = {};
inline bool is_emulated(Backend backend) { return emulated[static_cast<std::size_t>(backend)]; }

/// Has an emulation take the place of kernels that this processor lacks. It needs AVX2 itself.
template <class Register>
bool stand_in(Backend backend, const Register& register_kernel) {
  if (backend_available(backend) || !backend_available(Backend::kAvx2)) return false;
  register_kernel();
  return emulated[static_cast<std::size_t>(backend)] = true;
}

/// The back end whose other kernels go with `backend`'s products: emulated tiles stand on AVX2.
inline Backend vectors_of(Backend backend) {
  return backend == Backend::kAmx && is_emulated(backend) ? Backend::kAvx2 : backend;
}

/// Every CPU implementation there is; a test of one this processor lacks is skipped by name.
class BackendTest : public testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (is_emulated(GetParam())) return;
    if (!backend_available(GetParam())) GTEST_SKIP() << "this processor has no " << backend_name(GetParam());
  }
};

inline const Backend kCpuBackends[] = {Backend::kScalar, Backend::kAvx2, Backend::kAvx512};
/// Matrix products have instruction sets of their own.
inline const Backend kProductBackends[] = {Backend::kScalar, Backend::kAvx2, Backend::kAvx512, Backend::kAvx512Bf16,
                                           Backend::kAmx};

inline std::string backend_test_name(const testing::TestParamInfo<Backend>& info) {
  return std::string(backend_name(info.param));
}

/// The numbers of rows every T-invariance test compares with one row.
inline constexpr std::int64_t kRowCounts[] = {1, 2, 7, 16, 33};

}  // namespace specmoe::kernels
