#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 64;

/// A block per row and head: queries first, then keys, then values.
__global__ void __launch_bounds__(kThreads)
    rope_append_kernel(Rows<float> qkv, const std::int32_t* rows, const DeviceRow* row_info,
                       const DeviceSequence* sequences, AttentionShape shape, const float* cos_sin, std::int32_t half) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  const int head = static_cast<int>(blockIdx.y);
  const DeviceRow row = row_info[t];
  float* x = qkv.row(t) + static_cast<std::int64_t>(head) * shape.head_dim;
  float* to = x;  // queries stay where they are
  if (head >= shape.heads) {
    const DeviceSequence& sequence = sequences[row.sequence];
    const bool is_key = head < shape.heads + shape.kv_heads;
    const int kv_head = (head - shape.heads) % shape.kv_heads;
    to = (is_key ? sequence.keys : sequence.values) +
         (shape.first + static_cast<std::int64_t>(kv_head) * shape.head_dim) * sequence.capacity +
         static_cast<std::int64_t>(row.slot) * shape.head_dim;
  }
  const bool turns = head < shape.heads + shape.kv_heads;
  const float* cosine = cos_sin + static_cast<std::int64_t>(row.position) * 2 * half;
  const float* sine = cosine + half;
  const int turned = turns ? half : 0;
  for (int i = static_cast<int>(threadIdx.x); i < turned; i += kThreads) {
    const float x1 = x[i];
    const float x2 = x[i + half];
    to[i] = fmaf(x1, cosine[i], -(x2 * sine[i]));
    to[i + half] = fmaf(x2, cosine[i], x1 * sine[i]);
  }
  for (int i = 2 * turned + static_cast<int>(threadIdx.x); i < shape.head_dim; i += kThreads) to[i] = x[i];
}

}  // namespace

void rope_append(Rows<float> qkv, RowCount rows, const DeviceRow* row_info, const DeviceSequence* sequences,
                 const AttentionShape& shape, const float* cos_sin, std::int32_t half, Stream& stream) {
  if (rows.most == 0) return;
  const dim3 grid(static_cast<unsigned>(rows.most), static_cast<unsigned>(shape.heads + 2 * shape.kv_heads));
  launch(rope_append_kernel, grid, kThreads, 0, stream, qkv, rows.actual, row_info, sequences, shape, cos_sin, half);
}

}  // namespace specmoe::kernels::cuda
