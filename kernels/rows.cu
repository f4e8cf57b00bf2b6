#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// A block per row.
__global__ void __launch_bounds__(kThreads) embed_kernel(const void* embedding, DType dtype, const std::int32_t* tokens,
                                                         const std::int32_t* rows, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  const std::int64_t first = tokens[t] * out.cols;
  for (std::int64_t d = threadIdx.x; d < out.cols; d += kThreads) {
    out.row(t)[d] = dtype == DType::kBFloat16 ? low_float(static_cast<const std::uint16_t*>(embedding)[first + d])
                                              : static_cast<const float*>(embedding)[first + d];
  }
}

__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(Rows<const float> x, const std::int32_t* wanted, const std::int32_t* rows, Rows<float> out) {
  const auto i = static_cast<std::int64_t>(blockIdx.x);
  if (i >= *rows) return;
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) out.row(i)[d] = x.row(wanted[i])[d];
}

__global__ void __launch_bounds__(kThreads)
    silu_times_kernel(Rows<float> gate, const std::int32_t* rows, Rows<const float> up) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  for (std::int64_t n = threadIdx.x; n < gate.cols; n += kThreads) {
    const float g = gate.row(t)[n];
    gate.row(t)[n] = g / (1.0f + expf(-g)) * up.row(t)[n];
  }
}

/// A block per head and sequence. A thread moves its own dimensions, row after row: rows only move down, and to places
/// whose old contents have already been moved or dropped.
__global__ void __launch_bounds__(kThreads)
    kv_keep_kernel(const DeviceSequence* sequences, const std::int32_t* path, int most_path, AttentionShape shape) {
  const DeviceSequence sequence = sequences[blockIdx.z];
  const int head = static_cast<int>(blockIdx.x);
  const std::int64_t first = (shape.first + static_cast<std::int64_t>(head) * shape.head_dim) * sequence.capacity +
                             static_cast<std::int64_t>(sequence.committed) * shape.head_dim;
  float* rows = (blockIdx.y == 0 ? sequence.keys : sequence.values) + first;
  const std::int32_t* kept = path + static_cast<std::int64_t>(blockIdx.z) * most_path;
  for (int d = static_cast<int>(threadIdx.x); d < shape.head_dim; d += kThreads) {
    for (int i = 0; i < most_path && kept[i] >= 0; ++i) {
      if (kept[i] != i) rows[i * shape.head_dim + d] = rows[static_cast<std::int64_t>(kept[i]) * shape.head_dim + d];
    }
  }
}

}  // namespace

void embed(const void* embedding, DType dtype, const std::int32_t* tokens, RowCount rows, Rows<float> out,
           Stream& stream) {
  if (rows.most == 0) return;
  launch(embed_kernel, static_cast<unsigned>(rows.most), kThreads, 0, stream, embedding, dtype, tokens, rows.actual,
         out);
}

void gather_rows(Rows<const float> x, const std::int32_t* wanted, RowCount rows, Rows<float> out, Stream& stream) {
  if (rows.most == 0) return;
  launch(gather_rows_kernel, static_cast<unsigned>(rows.most), kThreads, 0, stream, x, wanted, rows.actual, out);
}

void silu_times(Rows<float> gate, RowCount rows, Rows<const float> up, Stream& stream) {
  if (rows.most == 0) return;
  launch(silu_times_kernel, static_cast<unsigned>(rows.most), kThreads, 0, stream, gate, rows.actual, up);
}

void kv_keep(const DeviceSequence* sequences, int count, const std::int32_t* path, int most_path,
             const AttentionShape& shape, Stream& stream) {
  if (count == 0) return;
  const dim3 grid(static_cast<unsigned>(shape.kv_heads), 2, static_cast<unsigned>(count));
  launch(kv_keep_kernel, grid, kThreads, 0, stream, sequences, path, most_path, shape);
}

}  // namespace specmoe::kernels::cuda
