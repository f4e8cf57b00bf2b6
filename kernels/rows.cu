#include "kernels/activate.h"
#include "kernels/cuda/cached.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/device_order.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// An embedding as a table.
struct TableEmbedding {
  const void* data;
  DType dtype;
  std::int64_t cols;
  __device__ float at(std::int64_t row, std::int32_t d) const {
    return dtype == DType::kBFloat16 ? low_float(static_cast<const std::uint16_t*>(data)[row * cols + d])
                                     : static_cast<const float*>(data)[row * cols + d];
  }
};

/// An embedding in the panels of the output head.
struct PanelEmbedding {
  DeviceMatrix head;
  __device__ float at(std::int32_t row, std::int32_t d) const {
    constexpr auto kPanel = static_cast<std::int32_t>(PackedMatrix::kPanel);
    const std::byte* panel = head.data + row / kPanel * head.panel_bytes;
    const std::byte* element = panel + device_element(head.dtype, row % kPanel, d);
    return head.dtype == DType::kBFloat16 ? low_float(*reinterpret_cast<const std::uint16_t*>(element))
                                          : *reinterpret_cast<const float*>(element);
  }
};

/// A block per row.
template <class Embedding>
__global__ void __launch_bounds__(kThreads) embed_kernel(Embedding embedding, const std::int32_t* tokens,
                                                         const std::int32_t* rows, float scale, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  for (int d = static_cast<int>(threadIdx.x); d < out.cols; d += kThreads) {
    out.row(t)[d] = embedding.at(tokens[t], d) * scale;
  }
}

__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(Rows<const float> x, const std::int32_t* wanted, const std::int32_t* rows, Rows<float> out) {
  const auto i = static_cast<std::int64_t>(blockIdx.x);
  if (i >= *rows) return;
  const std::int64_t from = wanted == nullptr ? i : wanted[i];
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) out.row(i)[d] = x.row(from)[d];
}

__global__ void __launch_bounds__(kThreads)
    copy_marked_kernel(Rows<const float> x, const std::int32_t* marks, const std::int32_t* rows, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows || marks[t] == 0) return;
  for (std::int64_t d = threadIdx.x; d < out.cols; d += kThreads) out.row(t)[d] = x.row(t)[d];
}

__global__ void __launch_bounds__(kThreads)
    add_silu_kernel(Rows<const float> branch, const std::int32_t* rows, Rows<float> x) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) x.row(t)[d] += activate({}, branch.row(t)[d], 1.0f);
}

__global__ void __launch_bounds__(kThreads) spread_logits_kernel(Rows<const float> logits, const std::int32_t* places,
                                                                 const std::int32_t* rows, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.y);
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= *rows || n >= out.cols) return;
  out.row(t)[n] = places[n] < 0 ? -INFINITY : logits.row(t)[places[n]];
}

__global__ void __launch_bounds__(kThreads)
    shape_logits_kernel(Rows<float> logits, const std::int32_t* rows, LogitShape shape) {
  const auto t = static_cast<std::int64_t>(blockIdx.y);
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= *rows || n >= logits.cols) return;
  const float scaled = logits.row(t)[n] * shape.scale;
  logits.row(t)[n] = shape.softcap > 0.0f ? shape.softcap * tanhf(scaled / shape.softcap) : scaled;
}

/// A block per head and sequence. A thread moves its own dimensions, row after row: rows only move down, and to places
/// whose old contents have already been moved or dropped.
template <class Element>
__global__ void __launch_bounds__(kThreads)
    kv_keep_kernel(const DeviceSequence* sequences, const std::int32_t* path, int most_path, AttentionShape shape) {
  const DeviceSequence sequence = sequences[blockIdx.z];
  const int head = static_cast<int>(blockIdx.x);
  const bool is_key = blockIdx.y == 0;
  const int size = is_key ? shape.head_dim : shape.value_size();
  Element* rows =
      static_cast<Element*>(is_key ? sequence.keys : sequence.values) +
      ((is_key ? shape.first : shape.values()) + static_cast<std::int64_t>(head) * size) * sequence.capacity +
      static_cast<std::int64_t>(sequence.committed) * size;
  const std::int32_t* kept = path + static_cast<std::int64_t>(blockIdx.z) * most_path;
  for (int d = static_cast<int>(threadIdx.x); d < size; d += kThreads) {
    for (int i = 0; i < most_path && kept[i] >= 0; ++i) {
      if (kept[i] != i) rows[i * size + d] = rows[static_cast<std::int64_t>(kept[i]) * size + d];
    }
  }
}

/// A thread per value of every row.
dim3 grid_of_values(const Rows<float>& x, RowCount rows) {
  return dim3(static_cast<unsigned>((x.cols + kThreads - 1) / kThreads), static_cast<unsigned>(rows.most));
}

}  // namespace

void embed(const void* embedding, DType dtype, const std::int32_t* tokens, RowCount rows, float scale, Rows<float> out,
           Stream& stream) {
  if (rows.most == 0) return;
  launch(embed_kernel<TableEmbedding>, static_cast<unsigned>(rows.most), kThreads, 0, stream,
         TableEmbedding{embedding, dtype, out.cols}, tokens, rows.actual, scale, out);
}

void embed(const DeviceMatrix& head, const std::int32_t* tokens, RowCount rows, float scale, Rows<float> out,
           Stream& stream) {
  if (rows.most == 0) return;
  launch(embed_kernel<PanelEmbedding>, static_cast<unsigned>(rows.most), kThreads, 0, stream, PanelEmbedding{head},
         tokens, rows.actual, scale, out);
}

void gather_rows(Rows<const float> x, const std::int32_t* wanted, RowCount rows, Rows<float> out, Stream& stream) {
  if (rows.most == 0) return;
  launch(gather_rows_kernel, static_cast<unsigned>(rows.most), kThreads, 0, stream, x, wanted, rows.actual, out);
}

void copy_marked_rows(Rows<const float> x, const std::int32_t* marks, RowCount rows, Rows<float> out, Stream& stream) {
  if (rows.most == 0) return;
  launch(copy_marked_kernel, static_cast<unsigned>(rows.most), kThreads, 0, stream, x, marks, rows.actual, out);
}

void add_silu(Rows<const float> branch, RowCount rows, Rows<float> x, Stream& stream) {
  if (rows.most == 0) return;
  launch(add_silu_kernel, static_cast<unsigned>(rows.most), kThreads, 0, stream, branch, rows.actual, x);
}

void shape_logits(Rows<float> logits, RowCount rows, const LogitShape& shape, Stream& stream) {
  if (rows.most == 0 || shape.plain()) return;
  launch(shape_logits_kernel, grid_of_values(logits, rows), kThreads, 0, stream, logits, rows.actual, shape);
}

void spread_logits(Rows<const float> logits, const std::int32_t* places, RowCount rows, Rows<float> out,
                   Stream& stream) {
  if (rows.most == 0) return;
  launch(spread_logits_kernel, grid_of_values(out, rows), kThreads, 0, stream, logits, places, rows.actual, out);
}

void kv_keep(const DeviceSequence* sequences, int count, const std::int32_t* path, int most_path,
             const AttentionShape& shape, Stream& stream) {
  if (count == 0) return;
  const dim3 grid(static_cast<unsigned>(shape.kv_heads), 2, static_cast<unsigned>(count));
  const auto kernel = shape.cached == DType::kBFloat16 ? kv_keep_kernel<BFloat16> : kv_keep_kernel<float>;
  launch(kernel, grid, kThreads, 0, stream, sequences, path, most_path, shape);
}

}  // namespace specmoe::kernels::cuda
