#include "kernels/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/element.h"

namespace specmoe::kernels {
namespace {

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
      return bfloat16_to_float(load<std::uint16_t>(from));
    case DType::kFloat16:
      return float16_to_float(load<std::uint16_t>(from));
    case DType::kInt8:
      return static_cast<float>(load<std::int8_t>(from));
  }
  return 0;
}

/// Inputs converted at a time: a cache line or two of a source row.
constexpr std::int64_t kChunk = 32;

/// to[i] = element i of `from` as Element; int8 is multiplied by `factor` and rounded first.
template <class Element>
void convert(const std::byte* from, DType dtype, std::int64_t n, float factor, Element* to) {
  if constexpr (std::is_same_v<Element, std::uint16_t>) {
    if (dtype == DType::kBFloat16) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(Element));
      return;
    }
  }
  const std::size_t width = dtype_bytes(dtype);
  for (std::int64_t i = 0; i < n; ++i, from += width) {
    const float value = load_element(from, dtype);
    if constexpr (std::is_same_v<Element, float>) to[i] = value;
    if constexpr (std::is_same_v<Element, std::uint16_t>) to[i] = float_to_bfloat16(value);
    if constexpr (std::is_same_v<Element, std::int8_t>) to[i] = round_to_int8(value * factor);
  }
}

/// Rows [0, count) of `source`, `pitch` bytes apart, into lanes [lane, lane + count) of a panel, line by line of it.
template <class Element>
void pack_panel(const std::byte* source, std::size_t pitch, DType dtype, std::int64_t cols, std::int64_t count,
                const float* factors, std::int64_t lane, std::byte* panel) {
  constexpr std::int64_t kTogether = std::is_same_v<Element, float> ? 1 : 2;
  constexpr std::size_t kStep = static_cast<std::size_t>(PackedMatrix::kPanel * kTogether) * sizeof(Element);
  const std::size_t width = dtype_bytes(dtype);
  for (std::int64_t col = 0; col < cols; col += kChunk) {
    const std::int64_t n = std::min(kChunk, cols - col);
    for (std::int64_t r = 0; r < count; ++r) {
      Element chunk[kChunk] = {};
      convert(source + static_cast<std::size_t>(r) * pitch + static_cast<std::size_t>(col) * width, dtype, n,
              factors[r], chunk);
      std::byte* to = panel + static_cast<std::size_t>(col / kTogether) * kStep +
                      static_cast<std::size_t>((lane + r) * kTogether) * sizeof(Element);
      for (std::int64_t i = 0; i < n; i += kTogether, to += kStep)
        std::memcpy(to, chunk + i, kTogether * sizeof(Element));
    }
  }
}

/// The largest magnitude; NaN when there is a NaN.
float largest_magnitude(const std::byte* from, DType dtype, std::int64_t n) {
  float largest = 0;
  for (std::int64_t i = 0; i < n; ++i, from += dtype_bytes(dtype)) {
    const float value = std::abs(load_element(from, dtype));
    if (!(value <= largest)) largest = value;
    if (std::isnan(value)) break;
  }
  return largest;
}

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

float round_to_int8(std::span<const float> values, std::int8_t* out) {
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  const auto count = static_cast<std::int64_t>(values.size());
  const Int8Scale rule(largest_magnitude(bytes, DType::kFloat32, count));
  convert(bytes, DType::kFloat32, count, rule.factor, out);
  return rule.scale;
}

std::string_view dtype_name(DType dtype) {
  constexpr std::array<std::string_view, 4> names = {"float32", "bfloat16", "float16", "int8"};
  return names[static_cast<std::size_t>(dtype)];
}

DType packed_dtype_from_name(std::string_view name) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    if (dtype_name(dtype) == name) return dtype;
  }
  fail("dtype: expected float32, bfloat16 or int8, got '", name, "'");
}

std::size_t dtype_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : dtype == DType::kInt8 ? 1 : 2; }

float WeightView::element(std::int64_t row, std::int64_t col) const {
  const auto index = static_cast<std::size_t>(row * cols + col);
  return load_element(static_cast<const std::byte*>(data) + index * dtype_bytes(dtype), dtype);
}

std::vector<float> WeightView::row(std::int64_t row) const {
  std::vector<float> values(static_cast<std::size_t>(cols));
  if (read_row) {
    read_row(row, values.data());
    return values;
  }
  const auto* from = static_cast<const std::byte*>(data) + static_cast<std::size_t>(row * cols) * dtype_bytes(dtype);
  for (float& value : values) {
    value = load_element(from, dtype);
    from += dtype_bytes(dtype);
  }
  return values;
}

PackedMatrix::PackedMatrix(std::int64_t rows, std::int64_t cols, DType dtype, Backend backend)
    : rows_(rows), cols_(cols), dtype_(dtype), backend_(backend), storage_(nullptr, nullptr) {
  SPECMOE_CHECK(rows >= 0 && cols >= 0, "packed matrix: expected sizes of 0 or more, got [", rows, ", ", cols, "]");
  SPECMOE_CHECK(dtype != DType::kFloat16, "packed matrix: weights are float32, bfloat16 or int8, got float16");
  panel_bytes_ = bytes_of(kPanel, cols, dtype);
  storage_ = allocate_aligned(bytes());
}

std::size_t PackedMatrix::bytes_of(std::int64_t rows, std::int64_t cols, DType dtype) {
  const std::int64_t inputs = dtype == DType::kFloat32 ? cols : round_up(cols, 2);
  const std::size_t scales = dtype == DType::kInt8 ? sizeof(float) : 0;
  const auto outputs = static_cast<std::size_t>(round_up(rows, kPanel));
  return outputs * (static_cast<std::size_t>(inputs) * dtype_bytes(dtype) + scales);
}

float* PackedMatrix::scales(std::int64_t row) const {
  return reinterpret_cast<float*>(panel_of(row) + panel_bytes_) - kPanel;
}

std::byte* PackedMatrix::element(std::int64_t row, std::int64_t col) const {
  const std::int64_t together = dtype_ == DType::kFloat32 ? 1 : 2;
  const std::int64_t index = (col / together * kPanel + row % kPanel) * together + col % together;
  return panel_of(row) + static_cast<std::size_t>(index) * dtype_bytes(dtype_);
}

/// Packs `count` int8 rows that share a panel.
void PackedMatrix::copy_int8_lanes(const WeightView& source, std::int64_t source_row, std::int64_t row,
                                   std::int64_t count) {
  std::vector<std::int8_t> values(static_cast<std::size_t>(count * cols_));
  const std::int64_t lane = row % kPanel;
  float factors[kPanel];
  for (std::int64_t r = 0; r < count; ++r) {
    scales(row)[lane + r] = source.read_int8(source_row + r, values.data() + r * cols_);
    factors[r] = 1;
  }
  pack_panel<std::int8_t>(reinterpret_cast<const std::byte*>(values.data()), static_cast<std::size_t>(cols_),
                          DType::kInt8, cols_, count, factors, lane, panel_of(row));
}

/// The same of any source.
void PackedMatrix::pack_lanes(const WeightView& source, std::int64_t source_row, std::int64_t row, std::int64_t count) {
  if (dtype_ == DType::kInt8 && source.read_int8) return copy_int8_lanes(source, source_row, row, count);
  const std::size_t pitch =
      static_cast<std::size_t>(cols_) * (source.read_row ? sizeof(float) : dtype_bytes(source.dtype));
  const auto* from = static_cast<const std::byte*>(source.data) + static_cast<std::size_t>(source_row) * pitch;
  DType dtype = source.dtype;
  std::vector<float> decoded;
  if (source.read_row) {
    decoded.resize(static_cast<std::size_t>(count * cols_));
    for (std::int64_t r = 0; r < count; ++r) source.read_row(source_row + r, decoded.data() + r * cols_);
    from = reinterpret_cast<const std::byte*>(decoded.data());
    dtype = DType::kFloat32;
  }
  const std::int64_t lane = row % kPanel;
  float factors[kPanel] = {};
  if (dtype_ == DType::kInt8) {
    for (std::int64_t r = 0; r < count; ++r) {
      const Int8Scale rule(largest_magnitude(from + static_cast<std::size_t>(r) * pitch, dtype, cols_));
      scales(row)[lane + r] = rule.scale;
      factors[r] = rule.factor;
    }
    pack_panel<std::int8_t>(from, pitch, dtype, cols_, count, factors, lane, panel_of(row));
  } else if (dtype_ == DType::kBFloat16) {
    pack_panel<std::uint16_t>(from, pitch, dtype, cols_, count, factors, lane, panel_of(row));
  } else {
    pack_panel<float>(from, pitch, dtype, cols_, count, factors, lane, panel_of(row));
  }
}

void PackedMatrix::pack_rows(const WeightView& source, std::int64_t first_row) {
  SPECMOE_CHECK(source.cols == cols_ && first_row >= 0 && first_row + source.rows <= rows_, "packed matrix [", rows_,
                ", ", cols_, "]: cannot take [", source.rows, ", ", source.cols, "] at row ", first_row);
  for (std::int64_t row = 0; row < source.rows;) {
    const std::int64_t count = std::min(kPanel - (first_row + row) % kPanel, source.rows - row);
    pack_lanes(source, row, first_row + row, count);
    row += count;
  }
}

void PackedMatrix::pack_gate_up(const WeightView& gate, const WeightView& up) {
  SPECMOE_CHECK(gate.rows == up.rows && gate.cols == cols_ && up.cols == cols_, "gate and up: expected two [I, ", cols_,
                "], got [", gate.rows, ", ", gate.cols, "] and [", up.rows, ", ", up.cols, "]");
  SPECMOE_CHECK(rows_ == 2 * round_up(gate.rows, kPanel), "gate and up of ", gate.rows, " rows need ",
                2 * round_up(gate.rows, kPanel), " packed rows, got ", rows_);
  for (std::int64_t row = 0; row < gate.rows; row += kPanel) {
    const std::int64_t count = std::min(kPanel, gate.rows - row);
    pack_lanes(gate, row, 2 * row, count);
    pack_lanes(up, row, 2 * row + kPanel, count);
  }
}

float PackedMatrix::at(std::int64_t row, std::int64_t col) const {
  const float value = load_element(element(row, col), dtype_);
  return dtype_ == DType::kInt8 ? value * scales(row)[row % kPanel] : value;
}

void PackedMatrix::read_row(std::int64_t row, float* out) const {
  const std::int64_t together = dtype_ == DType::kFloat32 ? 1 : 2;
  const std::size_t width = dtype_bytes(dtype_);
  const float scale = dtype_ == DType::kInt8 ? scales(row)[row % kPanel] : 1.0F;
  const std::byte* from = element(row, 0);
  for (std::int64_t col = 0; col < cols_;
       col += together, from += width * static_cast<std::size_t>(kPanel * together)) {
    out[col] = load_element(from, dtype_) * scale;
    if (together == 2 && col + 1 < cols_) out[col + 1] = load_element(from + width, dtype_) * scale;
  }
}

}  // namespace specmoe::kernels
