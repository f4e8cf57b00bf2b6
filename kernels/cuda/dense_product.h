#pragma once

#include <compare>
#include <cstdint>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/packed_matrix.h"

/// Products of whole matrices: cuBLASLt's in dense_product.cu, a plain loop's in tests/cuda_emulation.
namespace specmoe::kernels::cuda {

/// out = x weight^T, of matrices whose rows follow one another: x [rows, inputs] and weight [outputs, inputs] in
/// float32 or bfloat16, out [rows, outputs] in float32.
struct ProductShape {
  std::int64_t rows = 0;
  std::int64_t outputs = 0;
  std::int64_t inputs = 0;  // padded to rows of whole 32 bytes
  DType dtype = DType::kFloat32;
  auto operator<=>(const ProductShape&) const = default;
};

inline constexpr std::size_t kDenseWorkspaceBytes = std::size_t{32} << 20;  // of every DenseProduct

/// Sums are float32, products of float32 as exact as float32 has them. Of one shape all products are computed in one
/// way, chosen when the shape is first seen, which never splits a sum over blocks: the same values give the same bits.
class DenseProduct {
 public:
  /// Throws Error when cuBLASLt cannot be used on the stream's device. The stream must outlive it.
  explicit DenseProduct(Stream& stream);
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  /// Queues one product, also while a graph is recorded.
  void multiply(const ProductShape& shape, const void* x, const void* weight, float* out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace specmoe::kernels::cuda
