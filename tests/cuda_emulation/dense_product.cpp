#include "kernels/cuda/dense_product.h"

#include "kernels/check.h"
#include "kernels/element.h"
#include "tests/cuda_emulation/schedule.h"

/// kernels/cuda/dense_product.h without cuBLASLt: one sum after another.
namespace specmoe::kernels::cuda {
namespace {

float element(const void* matrix, std::int64_t i, DType dtype) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(matrix)[i];
  return bfloat16_to_float(static_cast<const std::uint16_t*>(matrix)[i]);
}

std::uint64_t products = 0;

}  // namespace

struct DenseProduct::State {
  Stream& stream;
};

DenseProduct::DenseProduct(Stream& stream) : state_(new State{stream}) {}
DenseProduct::~DenseProduct() = default;

void DenseProduct::multiply(const ProductShape& shape, const void* x, const void* weight, float* out) {
  SPECMOE_CHECK(shape.inputs * static_cast<std::int64_t>(dtype_bytes(shape.dtype)) % 32 == 0,
                "product: expected rows of whole 32 bytes, got ", shape.inputs, " inputs");
  queue_grid(1, 1, 1, 1, 0, state_->stream, [=] {
    ++products;
    for (std::int64_t t = 0; t < shape.rows; ++t) {
      for (std::int64_t n = 0; n < shape.outputs; ++n) {
        float sum = 0.0f;
        for (std::int64_t k = 0; k < shape.inputs; ++k) {
          sum += element(x, t * shape.inputs + k, shape.dtype) * element(weight, n * shape.inputs + k, shape.dtype);
        }
        out[t * shape.outputs + n] = sum;
      }
    }
  });
}

}  // namespace specmoe::kernels::cuda

namespace cuda_emulation {

std::uint64_t dense_product_count() { return specmoe::kernels::cuda::products; }

}  // namespace cuda_emulation
