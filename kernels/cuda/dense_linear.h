#pragma once

#include <span>

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/dense_product.h"

namespace specmoe::kernels::cuda {

/// packed_linear for passes of one number of rows, which is large: a matrix is taken out of its panels, multiplied by
/// DenseProduct, and left again. As in panel_product.h a float32 input meets a bfloat16 weight as the three bfloat16
/// that add up to it, here as three rows of the product. Its sums have another order than packed_linear's, so it gives
/// a row other last bits: who chooses between the two must not choose by what else is in a pass.
class DenseLinear {
 public:
  /// rows     of every product
  /// weights  those that it will be asked for: room is made for the largest, and their products are chosen
  /// throws   Error when the device has no room, or cuBLASLt no product
  DenseLinear(int rows, std::span<const DeviceMatrix> weights, Stream& stream);

  int rows() const { return rows_; }
  /// As packed_linear, of exactly rows() rows.
  void multiply(Rows<const float> x, const DeviceMatrix& weight, const float* bias, Rows<const float> residual,
                Rows<float> out);

 private:
  int rows_;
  Stream& stream_;
  DenseProduct product_;
  DeviceArray<std::byte> weight_, x_;
  DeviceArray<float> sums_;
};

}  // namespace specmoe::kernels::cuda
