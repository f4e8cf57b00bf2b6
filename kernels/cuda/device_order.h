#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/packed_matrix.h"

/// Weights in the order in which the device reads them: of a panel of 16 outputs, tiles of 512 bytes, each as a warp's
/// 32 lanes hold it, 16 bytes per lane. K is padded with zeros to whole tiles.
///
///   float32   a tile is 8 inputs; lane output + 16 * (input / 4) has four inputs of its output
///   bfloat16  a tile is 16 inputs, the left operand of one mma: with pairs of inputs p = 0..7, lane
///             4 * (output % 8) + p % 4 has pair p of outputs o and o + 8, then pair p + 4 of both
///
/// A word is 4 bytes, one float32 or two neighbouring bfloat16 inputs of one output, and a line is the words of 16
/// outputs: PackedMatrix holds line after line, a tile has eight.
namespace specmoe::kernels::cuda {

inline constexpr std::int32_t kTileBytes = 512;
inline constexpr std::int32_t kTileWords = kTileBytes / 4;
inline constexpr std::int32_t kTileLines = kTileWords / 16;

/// Where in its panel's bytes the input `k` of output `o`, below 16, lies.
SPECMOE_HD inline std::int32_t device_element(DType dtype, std::int32_t o, std::int32_t k) {
  if (dtype == DType::kFloat32) return k / 8 * kTileBytes + ((o + k % 8 / 4 * 16) * 4 + k % 4) * 4;
  const std::int32_t pair = k % 16 / 2;
  return k / 16 * kTileBytes + ((o % 8 * 4 + pair % 4) * 4 + pair / 4 * 2 + o / 8) * 4 + k % 2 * 2;
}

/// Which line and output the word `word` of a tile is.
struct TileWord {
  std::int32_t line, output;
  SPECMOE_HD TileWord(DType dtype, std::int32_t word) {
    const std::int32_t lane = word / 4, i = word % 4;
    const bool pairs = dtype == DType::kBFloat16;
    line = pairs ? lane % 4 + i / 2 * 4 : lane / 16 * 4 + i;
    output = pairs ? lane / 4 + i % 2 * 8 : lane % 16;
  }
};

/// Panels as PackedMatrix holds them, read word by word in the device's order.
struct OrderedPanels {
  const std::uint32_t* packed = nullptr;
  std::int64_t packed_lines = 0;  // of a panel
  std::int64_t tiles = 0;         // of a panel
  DType dtype = DType::kFloat32;

  SPECMOE_HD std::uint32_t operator()(std::int64_t word) const {
    const std::int64_t tile = word / kTileWords, panel = tile / tiles;
    const TileWord at(dtype, static_cast<std::int32_t>(word % kTileWords));
    const std::int64_t line = tile % tiles * kTileLines + at.line;
    return line < packed_lines ? packed[(panel * packed_lines + line) * 16 + at.output] : 0;
  }
};

/// Bytes of one panel. Throws Error for a type that the device kernels do not multiply.
std::int64_t device_panel_bytes(std::int64_t cols, DType dtype);
/// Bytes of a whole matrix, panel after panel.
std::size_t device_bytes(const PackedMatrix& matrix);

}  // namespace specmoe::kernels::cuda
