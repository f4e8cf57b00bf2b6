#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/dense_product.h"

namespace specmoe::kernels::cuda {

/// packed_linear, and the feed-forward part that every row takes, for passes of one number of rows, which is large: a
/// matrix is taken out of its panels, multiplied by DenseProduct, and left again. As in panel_product.h a float32 input
/// meets a bfloat16 weight as the three bfloat16 that add up to it, here as three rows of the product. Its sums have
/// another order than packed_linear's, so it gives a row other last bits: who chooses between the two must not choose
/// by what else is in a pass.
class DenseLinear {
 public:
  /// What an instance takes on the device. weights: as below
  static std::int64_t device_bytes(int rows, std::span<const DeviceMatrix> weights);

  /// rows     of every product
  /// weights  the shapes that it will be asked for: room is made for the largest, and their products are chosen
  /// throws   Error when the device has no room, or cuBLASLt no product
  DenseLinear(int rows, std::span<const DeviceMatrix> weights, Stream& stream);

  int rows() const { return rows_; }
  /// As packed_linear, of exactly rows() rows. row_weight: [rows()] multiplies what is added to the residual; null:
  /// nothing does
  void multiply(Rows<const float> x, const DeviceMatrix& weight, const float* bias, Rows<const float> residual,
                Rows<float> out, const float* row_weight = nullptr);
  /// As moe_up with one expert for every row: gate_up packed with pack_gate_up, bias [2 * width] gate, then up, or
  /// null.
  void multiply_gate_up(Rows<const float> x, const DeviceMatrix& gate_up, const float* bias,
                        const Activation& activation, Rows<float> hidden);

 private:
  /// Leaves the sums of all parts in sums_.
  ProductShape multiply_parts(Rows<const float> x, const DeviceMatrix& weight);

  int rows_;
  Stream& stream_;
  DenseProduct product_;
  std::vector<ProductShape> shapes_;  // that there is room for
  DeviceArray<std::byte> weight_, x_;
  DeviceArray<float> sums_;
};

}  // namespace specmoe::kernels::cuda
