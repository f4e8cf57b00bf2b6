#include "kernels/cuda/device_order.h"

#include "kernels/check.h"

namespace specmoe::kernels::cuda {

std::int64_t device_panel_bytes(std::int64_t cols, DType dtype) {
  SPECMOE_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16,
                "weights on cuda: expected float32 or bfloat16, got ", dtype_name(dtype));
  const std::int64_t tile_inputs = dtype == DType::kFloat32 ? 8 : 16;
  return (cols + tile_inputs - 1) / tile_inputs * kTileBytes;
}

std::size_t device_bytes(const PackedMatrix& matrix) {
  return static_cast<std::size_t>(matrix.panels() * device_panel_bytes(matrix.cols(), matrix.dtype()));
}

}  // namespace specmoe::kernels::cuda
