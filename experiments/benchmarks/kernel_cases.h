#pragma once

// What kernels_bench measures: calls of a kernel on made-up numbers, what they read and compute, and where their
// results differ from those of the scalar kernel.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "kernels/view.h"

namespace specmoe::bench {

using kernels::Backend;
using kernels::DType;
using kernels::PackedMatrix;
using kernels::Range;
using kernels::Rows;
using kernels::ThreadPool;

/// A kernel at one shape.
struct Case {
  std::string op;                         // name of the kernel
  nlohmann::ordered_json shape;           // all sizes but T
  std::int64_t rows = 0;                  // T
  double bytes = 0;                       // that a call reads and writes
  double operations = 0;                  // of a call, a multiply-add as two; 0: not worth counting
  Backend arithmetic = Backend::kScalar;  // whose multiply-adds these are
  ThreadPool* team = nullptr;             // that shares a call
  int calls = 1;                          // in one run
  std::vector<Range> reads = {};  // where a run reads, when that is not `bytes` in a row: parts of one buffer, in turn
  std::function<void()> run = {};
  std::function<std::string()> check =
      {};  // runs, and says where the scalar kernel gives something else; empty: nowhere

  std::string text() const {
    std::string text;
    for (const auto& [name, value] : shape.items()) {
      text += text.empty() ? "" : " ";
      text += value.is_string() ? value.get<std::string>() : name + "=" + value.dump();
    }
    return text;
  }
};

/// `call` has run() and check(); the case keeps it and all its memory.
template <class Call>
Case case_of(std::shared_ptr<Call> call, Case what) {
  what.run = [call] { call->run(); };
  what.check = [call] { return call->check(); };
  return what;
}

/// What all cases are made with.
struct Setup {
  ThreadPool& team;
  ThreadPool& alone;  // one thread
  Backend backend;
  std::int64_t weight_bytes;  // of a product, about

  /// The multiply-adds of products with weights of this type: narrow ones have instructions of their own.
  Backend arithmetic(DType weights) const {
    return kernels::rounds_inputs(backend, weights) ? backend : std::min(backend, Backend::kAvx512);
  }
};

/// Numbers that are the same everywhere (SplitMix64).
class Noise {
 public:
  explicit Noise(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  /// From [-1, 1), and a bfloat16, so that back ends that round their inputs change nothing.
  float number() { return static_cast<float>(static_cast<std::int32_t>(bits() >> 56) - 128) / 128.0F; }

 private:
  std::uint64_t state_;
};

/// Aligned as the workspaces of a model are.
class FloatRows {
 public:
  FloatRows(std::int64_t rows, std::int64_t cols)
      : memory_(kernels::allocate_aligned(static_cast<std::size_t>(rows * cols) * sizeof(float))),
        view_(kernels::contiguous(reinterpret_cast<float*>(memory_.get()), rows, cols)) {}
  /// Noise times `scale`, a power of two.
  FloatRows(std::int64_t rows, std::int64_t cols, Noise& noise, float scale = 1.0F) : FloatRows(rows, cols) {
    for (float& value : values()) value = scale * noise.number();
  }

  Rows<float> view() const { return view_; }
  float* data() const { return view_.data; }
  std::span<float> values() const { return {view_.data, static_cast<std::size_t>(view_.rows * view_.cols)}; }
  double bytes() const { return static_cast<double>(values().size_bytes()); }

 private:
  kernels::AlignedBytes memory_;
  Rows<float> view_;
};

/// |got - expected| <= absolute + relative * |expected|
struct Tolerance {
  double absolute;
  double relative;
};
/// float32 sums of up to some thousand products, in another order: results are of size 1, partial sums as well, and
/// each of the roundings adds at most 2^-24 of that, now up, now down.
inline constexpr Tolerance kSums = {1e-4, 1e-4};
/// Exponentials over a sum of 32000 of them. An absolute part would pass any small probability.
inline constexpr Tolerance kProbabilities = {1e-9, 1e-4};

/// The first place in these columns where the two differ, in words; empty: none.
inline std::string difference(Rows<const float> got, Rows<const float> expected, Range columns, Tolerance allowed) {
  for (std::int64_t t = 0; t < got.rows; ++t) {
    for (std::int64_t n = columns.begin; n < columns.end; ++n) {
      const double x = got.row(t)[n], y = expected.row(t)[n];
      if (std::abs(x - y) <= allowed.absolute + allowed.relative * std::abs(y)) continue;
      return concat("row ", t, ", column ", n, ": got ", x, ", scalar gives ", y);
    }
  }
  return {};
}
inline std::string difference(const FloatRows& got, const FloatRows& expected, Tolerance allowed) {
  return difference(got.view(), expected.view(), {0, got.view().cols}, allowed);
}
inline std::string difference(std::span<const std::int32_t> got, std::span<const std::int32_t> expected) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] != expected[i]) return concat("place ", i, ": got ", got[i], ", scalar gives ", expected[i]);
  }
  return {};
}

/// What visit(panel) says first, of up to 16 panels from the first to the last: the scalar kernel would take seconds
/// over all of them.
template <class Visit>
std::string of_some_panels(std::int64_t panels, const Visit& visit) {
  const std::int64_t count = std::min<std::int64_t>(panels, 16);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string found = visit(count == 1 ? 0 : (panels - 1) * i / (count - 1));
    if (!found.empty()) return found;
  }
  return {};
}
inline Range columns_of(std::int64_t panel) {
  return {panel * PackedMatrix::kPanel, (panel + 1) * PackedMatrix::kPanel};
}

/// Weights that give results of size 1 for inputs from [-1, 1).
inline PackedMatrix noise_matrix(std::int64_t outputs, std::int64_t inputs, DType dtype, Backend backend,
                                 Noise& noise) {
  PackedMatrix matrix(outputs, inputs, dtype, backend);
  const float scale = std::exp2(std::round(std::log2(3.0F / std::sqrt(static_cast<float>(inputs)))));
  for (std::int64_t n = 0; n < outputs; n += PackedMatrix::kPanel) {
    const std::int64_t rows = std::min(PackedMatrix::kPanel, outputs - n);
    const FloatRows some(rows, inputs, noise, scale);
    matrix.pack_rows({some.data(), DType::kFloat32, rows, inputs}, n);
  }
  return matrix;
}

/// Outputs [N], in whole panels, of `count` weights [N, inputs] that take `bytes` together.
inline std::int64_t outputs_of(std::int64_t bytes, std::int64_t count, std::int64_t inputs, DType dtype) {
  const std::int64_t panel = count * inputs * static_cast<std::int64_t>(dtype_bytes(dtype)) * PackedMatrix::kPanel;
  return std::max<std::int64_t>(1, bytes / panel) * PackedMatrix::kPanel;
}

}  // namespace specmoe::bench
