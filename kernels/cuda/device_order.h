#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/host_device.h"
#include "kernels/packed_matrix.h"

/// Weights in the order in which the device reads them: of a panel of 16 outputs, tiles of 512 bytes, each as a warp's
/// 32 lanes hold it, 16 bytes per lane. K is padded with zeros to whole tiles.
///
///   float32   a tile is 8 inputs; lane output + 16 * (input / 4) has four inputs of its output
///   bfloat16  a tile is 16 inputs, the left operand of one mma: with pairs of inputs p = 0..7, lane
///             4 * (output % 8) + p % 4 has pair p of outputs o and o + 8, then pair p + 4 of both
namespace specmoe::kernels::cuda {

inline constexpr std::int32_t kTileBytes = 512;

/// Where in its panel's bytes the input `k` of output `o`, below 16, lies.
SPECMOE_HD inline std::int32_t device_element(DType dtype, std::int32_t o, std::int32_t k) {
  if (dtype == DType::kFloat32) return k / 8 * kTileBytes + ((o + k % 8 / 4 * 16) * 4 + k % 4) * 4;
  const std::int32_t pair = k % 16 / 2;
  return k / 16 * kTileBytes + ((o % 8 * 4 + pair % 4) * 4 + pair / 4 * 2 + o / 8) * 4 + k % 2 * 2;
}

/// Bytes of one panel. Throws Error for a type that the device kernels do not multiply.
std::int64_t device_panel_bytes(std::int64_t cols, DType dtype);

/// The whole matrix, panel after panel.
std::vector<std::byte> to_device_order(const PackedMatrix& matrix);

}  // namespace specmoe::kernels::cuda
