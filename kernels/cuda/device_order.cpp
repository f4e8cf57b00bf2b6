#include "kernels/cuda/device_order.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/check.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr std::size_t kWordBytes = 4;  // one float32, or two neighbouring bfloat16 inputs of one output
constexpr std::size_t kTileWords = kTileBytes / kWordBytes;

/// Where word [line][output] of a tile in PackedMatrix's order goes: 8 lines of 16 outputs.
std::array<std::size_t, kTileWords> word_order(DType dtype) {
  std::array<std::size_t, kTileWords> order{};
  const std::int32_t inputs = dtype == DType::kFloat32 ? 1 : 2;  // of a line
  for (std::int32_t line = 0; line < 8; ++line) {
    for (std::int32_t output = 0; output < 16; ++output) {
      const std::int32_t to = device_element(dtype, output, line * inputs);
      order[static_cast<std::size_t>(line * 16 + output)] = static_cast<std::size_t>(to) / kWordBytes;
    }
  }
  return order;
}

}  // namespace

std::int64_t device_panel_bytes(std::int64_t cols, DType dtype) {
  SPECMOE_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16,
                "weights on cuda: expected float32 or bfloat16, got ", dtype_name(dtype));
  const std::int64_t tile_inputs = dtype == DType::kFloat32 ? 8 : 16;
  return (cols + tile_inputs - 1) / tile_inputs * kTileBytes;
}

std::vector<std::byte> to_device_order(const PackedMatrix& matrix) {
  const auto panel_bytes = static_cast<std::size_t>(device_panel_bytes(matrix.cols(), matrix.dtype()));
  const std::array<std::size_t, kTileWords> order = word_order(matrix.dtype());
  std::vector<std::byte> ordered(static_cast<std::size_t>(matrix.panels()) * panel_bytes);
  for (std::int64_t p = 0; p < matrix.panels(); ++p) {
    const std::byte* from = matrix.panel(p);
    std::byte* to = ordered.data() + static_cast<std::size_t>(p) * panel_bytes;
    for (std::size_t word = 0; word < matrix.panel_bytes() / kWordBytes; ++word) {
      const std::size_t target = word / kTileWords * kTileWords + order[word % kTileWords];
      std::memcpy(to + target * kWordBytes, from + word * kWordBytes, kWordBytes);
    }
  }
  return ordered;
}

}  // namespace specmoe::kernels::cuda
