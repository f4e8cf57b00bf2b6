#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/view.h"

namespace specmoe::kernels {

enum class DType { kFloat32, kBFloat16, kFloat16, kInt8 };

std::string_view dtype_name(DType dtype);
/// A type that weights can be packed in. Throws Error for another name; the text lists the known ones.
DType packed_dtype_from_name(std::string_view name);
std::size_t dtype_bytes(DType dtype);

/// Whether products with weights of this type round their inputs to bfloat16 first: the instruction takes nothing
/// wider.
inline bool rounds_inputs(Backend backend, DType weights) {
  return (backend == Backend::kAvx512Bf16 || backend == Backend::kAmx) && weights != DType::kFloat32;
}

/// A borrowed row-major [rows, cols] weight as it lies in a checkpoint.
struct WeightView {
  const void* data = nullptr;  // need not be aligned; null: no weight
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;  // outputs N
  std::int64_t cols = 0;  // inputs K

  /// Set when data is not elements of dtype in order (quantised, say): out[0, cols) = a row.
  std::function<void(std::int64_t row, float* out)> read_row = {};
  /// Set beside read_row when rows are int8 with a scale each: out[0, cols) = a row, returned is its scale. Packed as
  /// int8 they are copied, not rounded again.
  std::function<float(std::int64_t row, std::int8_t* out)> read_int8 = {};

  /// An element of a view without read_row.
  float element(std::int64_t row, std::int64_t col) const;
  /// Row `row` as float32, however it is stored.
  std::vector<float> row(std::int64_t row) const;
};

/// The rounding of int8 weights: out[i] * scale is next to values[i]. Returns the scale, NaN when a value is not
/// finite.
float round_to_int8(std::span<const float> values, std::int8_t* out);

/// 64-byte aligned storage with zeroed padding.
using AlignedBytes = std::unique_ptr<std::byte[], void (*)(std::byte*)>;
AlignedBytes allocate_aligned(std::size_t bytes);

/// Rises whenever packed bytes change for the same weights, so that kept ones are not taken for new ones.
constexpr int kPackedLayout = 1;

/// A weight [N, K] repacked once at load for y = x W^T: panels of 16 outputs, contiguous over K, N padded with zero
/// outputs to whole panels. Element type float32, bfloat16 (rounded to nearest even when the source is wider) or int8:
/// every output has a scale, its largest magnitude / 127, by which its elements are divided and rounded to nearest
/// even.
///
/// Of a panel, float32: [K][16]. The narrow types: [K / 2][16][2], K padded to even with zeros, so that one load holds
/// two inputs of each output; int8 is followed by the 16 scales in float32.
class PackedMatrix {
 public:
  static constexpr std::int64_t kPanel = 16;

  PackedMatrix() : storage_(nullptr, nullptr) {}
  PackedMatrix(std::int64_t rows, std::int64_t cols, DType dtype, Backend backend);

  /// Packs `source` into output rows [first_row, first_row + source.rows). first_row need not be panel-aligned.
  void pack_rows(const WeightView& source, std::int64_t first_row = 0);

  /// Gate rows and up rows interleaved by panel, so that one pass over panels 2j and 2j+1 holds 16 gate outputs and
  /// their 16 up outputs. The matrix must be [2 * I, K] with I = gate.rows = up.rows, I rounded up to whole panels.
  void pack_gate_up(const WeightView& gate, const WeightView& up);

  std::int64_t rows() const { return rows_; }  // N
  std::int64_t cols() const { return cols_; }  // K
  std::int64_t panels() const { return (rows_ + kPanel - 1) / kPanel; }
  /// Which panels are this thread's when a team shares them.
  Range share(Shard shard) const { return split(panels(), shard); }
  DType dtype() const { return dtype_; }
  Backend backend() const { return backend_; }
  std::size_t bytes() const { return static_cast<std::size_t>(panels()) * panel_bytes_; }
  std::size_t panel_bytes() const { return panel_bytes_; }
  /// What bytes() of a matrix of this shape is.
  static std::size_t bytes_of(std::int64_t rows, std::int64_t cols, DType dtype);
  /// All panels one after another, to be filled from where they were kept before.
  std::span<std::byte> storage() { return {storage_.get(), bytes()}; }
  const std::byte* panel(std::int64_t p) const { return storage_.get() + static_cast<std::size_t>(p) * panel_bytes_; }

  /// The element as packed, after rounding (tests and the embedding of tied weights; not for the hot path).
  float at(std::int64_t row, std::int64_t col) const;

  /// out[0, cols()) = row `row` as packed: the embedding lookup of tied weights.
  void read_row(std::int64_t row, float* out) const;

 private:
  std::byte* element(std::int64_t row, std::int64_t col) const;
  std::byte* panel_of(std::int64_t row) const { return storage_.get() + std::size_t(row / kPanel) * panel_bytes_; }
  float* scales(std::int64_t row) const;
  void pack_lanes(const WeightView& source, std::int64_t source_row, std::int64_t row, std::int64_t count);
  void copy_int8_lanes(const WeightView& source, std::int64_t source_row, std::int64_t row, std::int64_t count);

  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  DType dtype_ = DType::kFloat32;
  Backend backend_ = Backend::kScalar;
  std::size_t panel_bytes_ = 0;
  AlignedBytes storage_;
};

}  // namespace specmoe::kernels
