#include "kernels/packed_matrix.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/check.h"

namespace specmoe::kernels {
namespace {

float from_bfloat16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

/// Rounds to nearest, ties to even; a NaN stays a NaN.
std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_float16(std::uint16_t bits) {
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) return std::bit_cast<float>(((bits & 0x8000u) << 16) | 0x7f800000u | (bits & 0x3ffu) << 13);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

template <class T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

float load_element(const std::byte* from, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return load<float>(from);
    case DType::kBFloat16:
      return from_bfloat16(load<std::uint16_t>(from));
    case DType::kFloat16:
      return from_float16(load<std::uint16_t>(from));
  }
  return 0;
}

/// CUDA: tiles of 512 bytes in the order in which a warp's 32 lanes hold them, 16 bytes each (kernels/cuda).
/// float32: 8 inputs; lane = output + 16 * (input / 4). bfloat16: 16 inputs, the left operand of one mma; with pairs of
/// inputs, lane = 4 * (output % 8) + pair % 4, holding outputs o and o + 8 of pair t, then both of pair t + 4.
std::int64_t cuda_tile_inputs(DType dtype) { return dtype == DType::kBFloat16 ? 16 : 8; }

std::int64_t cuda_offset(std::int64_t output, std::int64_t input, DType dtype) {
  constexpr std::int64_t kTileBytes = 512;
  constexpr std::int64_t kLaneBytes = 16;
  const std::int64_t tile = input / cuda_tile_inputs(dtype) * kTileBytes;
  const std::int64_t inside = input % cuda_tile_inputs(dtype);
  if (dtype == DType::kFloat32) return tile + (output + inside / 4 * 16) * kLaneBytes + inside % 4 * 4;
  const std::int64_t pair = inside / 2;
  const std::int64_t lane = output % 8 * 4 + pair % 4;
  const std::int64_t part = pair / 4 * 2 + output / 8;
  return tile + lane * kLaneBytes + part * 4 + inside % 2 * 2;
}

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

std::string_view dtype_name(DType dtype) {
  constexpr std::array<std::string_view, 3> names = {"float32", "bfloat16", "float16"};
  return names[static_cast<std::size_t>(dtype)];
}

std::size_t dtype_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

float WeightView::at(std::int64_t row, std::int64_t col) const {
  const auto index = static_cast<std::size_t>(row * cols + col);
  return load_element(static_cast<const std::byte*>(data) + index * dtype_bytes(dtype), dtype);
}

PackedMatrix::PackedMatrix(std::int64_t rows, std::int64_t cols, DType dtype, Backend backend)
    : rows_(rows), cols_(cols), dtype_(dtype), backend_(backend), storage_(nullptr, nullptr) {
  SPECMOE_CHECK(rows >= 0 && cols >= 0, "packed matrix: expected sizes of 0 or more, got [", rows, ", ", cols, "]");
  SPECMOE_CHECK(dtype != DType::kFloat16, "packed matrix: weights are float32 or bfloat16, got float16");
  storage_ = allocate_aligned(bytes());
}

std::size_t PackedMatrix::bytes() const { return static_cast<std::size_t>(panels()) * panel_bytes(); }

std::size_t PackedMatrix::panel_bytes() const {
  const std::int64_t unit = backend_ == Backend::kCuda ? cuda_tile_inputs(dtype_) : dtype_ == DType::kBFloat16 ? 2 : 1;
  const std::int64_t inputs = round_up(cols_, unit);
  return static_cast<std::size_t>(inputs * kPanel) * dtype_bytes(dtype_);
}

/// CPU. float32: [K][16]. bfloat16: [K / 2][16][2], so that one load holds two inputs of each output, the first in the
/// low half of every 32-bit lane (a shift makes it a float), the second in the high half (a mask does); K padded to
/// even.
std::byte* PackedMatrix::element(std::int64_t row, std::int64_t col) const {
  const std::int64_t lane = row % kPanel;
  const std::int64_t offset = backend_ == Backend::kCuda  ? cuda_offset(lane, col, dtype_)
                              : dtype_ == DType::kFloat32 ? (col * kPanel + lane) * 4
                                                          : (col / 2 * kPanel + lane) * 4 + col % 2 * 2;
  return storage_.get() + static_cast<std::size_t>(row / kPanel) * panel_bytes() + offset;
}

void PackedMatrix::pack_row(const WeightView& source, std::int64_t source_row, std::int64_t row) {
  const std::size_t width = dtype_bytes(source.dtype);
  const auto* from = static_cast<const std::byte*>(source.data) + static_cast<std::size_t>(source_row * cols_) * width;
  if (dtype_ == DType::kFloat32) {
    for (std::int64_t col = 0; col < cols_; ++col, from += width) {
      const float value = load_element(from, source.dtype);
      std::memcpy(element(row, col), &value, 4);
    }
    return;
  }
  for (std::int64_t col = 0; col < cols_; ++col, from += width) {
    const std::uint16_t value =
        source.dtype == DType::kBFloat16 ? load<std::uint16_t>(from) : to_bfloat16(load_element(from, source.dtype));
    std::memcpy(element(row, col), &value, 2);
  }
}

void PackedMatrix::pack_rows(const WeightView& source, std::int64_t first_row) {
  SPECMOE_CHECK(source.cols == cols_ && first_row >= 0 && first_row + source.rows <= rows_, "packed matrix [", rows_,
                ", ", cols_, "]: cannot take [", source.rows, ", ", source.cols, "] at row ", first_row);
  for (std::int64_t row = 0; row < source.rows; ++row) pack_row(source, row, first_row + row);
}

void PackedMatrix::pack_gate_up(const WeightView& gate, const WeightView& up) {
  SPECMOE_CHECK(gate.rows == up.rows && gate.cols == cols_ && up.cols == cols_, "gate and up: expected two [I, ", cols_,
                "], got [", gate.rows, ", ", gate.cols, "] and [", up.rows, ", ", up.cols, "]");
  SPECMOE_CHECK(rows_ == 2 * round_up(gate.rows, kPanel), "gate and up of ", gate.rows, " rows need ",
                2 * round_up(gate.rows, kPanel), " packed rows, got ", rows_);
  for (std::int64_t row = 0; row < gate.rows; ++row) {
    const std::int64_t packed = row / kPanel * 2 * kPanel + row % kPanel;
    pack_row(gate, row, packed);
    pack_row(up, row, packed + kPanel);
  }
}

float PackedMatrix::at(std::int64_t row, std::int64_t col) const { return load_element(element(row, col), dtype_); }

void PackedMatrix::read_row(std::int64_t row, float* out) const {
  for (std::int64_t col = 0; col < cols_; ++col) out[col] = at(row, col);
}

}  // namespace specmoe::kernels
