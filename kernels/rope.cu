#include "kernels/cuda/cached.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 64;

/// A head's element after its norm, if it has one.
struct NormedHead {
  const float* x;
  const float* weight;
  float scale;
  __device__ float operator[](int i) const { return weight == nullptr ? x[i] : weight[i] * (x[i] * scale); }
};

/// Has a barrier between reading all of the head and whatever comes after.
__device__ NormedHead normed_head(const float* x, int head_dim, const float* weight, float eps) {
  float* scratch = SharedArena().take<float>(kThreads / kWarp);
  if (weight == nullptr) return {x, nullptr, 1.0f};
  float squares = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < head_dim; i += kThreads) squares = fmaf(x[i], x[i], squares);
  const float mean = block_sum(squares, scratch) / static_cast<float>(head_dim);
  return {x, weight, 1.0f / sqrtf(mean + eps)};
}

/// A block per row and head: queries first, then keys, then values.
__global__ void __launch_bounds__(kThreads)
    rope_append_kernel(Rows<float> qkv, const std::int32_t* rows, const DeviceRow* row_info,
                       const DeviceSequence* sequences, AttentionShape shape, HeadNorms norms, const float* cos_sin,
                       std::int32_t half) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  const int head = static_cast<int>(blockIdx.y);
  const DeviceRow row = row_info[t];
  float* x = qkv.row(t) + static_cast<std::int64_t>(head) * shape.head_dim;
  const bool is_query = head < shape.heads;
  const bool is_key = !is_query && head < shape.heads + shape.kv_heads;
  HeadPlace to = {x, 0, DType::kFloat32};  // queries stay where they are
  if (!is_query) {
    const DeviceSequence& sequence = sequences[row.sequence];
    const int kv_head = (head - shape.heads) % shape.kv_heads;
    to = {is_key ? sequence.keys : sequence.values,
          (shape.first + static_cast<std::int64_t>(kv_head) * shape.head_dim) * sequence.capacity +
              static_cast<std::int64_t>(row.slot) * shape.head_dim,
          shape.cached};
  }
  const float* weight = is_query ? norms.query : is_key ? norms.key : nullptr;
  const NormedHead normed = normed_head(x, shape.head_dim, weight, norms.eps);
  const float* cosine = cos_sin + static_cast<std::int64_t>(row.position) * 2 * half;
  const float* sine = cosine + half;
  const int turned = is_query || is_key ? half : 0;
  for (int i = static_cast<int>(threadIdx.x); i < turned; i += kThreads) {
    const float x1 = normed[i];
    const float x2 = normed[i + half];
    to.put(i, fmaf(x1, cosine[i], -(x2 * sine[i])));
    to.put(i + half, fmaf(x2, cosine[i], x1 * sine[i]));
  }
  for (int i = 2 * turned + static_cast<int>(threadIdx.x); i < shape.head_dim; i += kThreads) to.put(i, normed[i]);
}

}  // namespace

void rope_append(Rows<float> qkv, RowCount rows, const DeviceRow* row_info, const DeviceSequence* sequences,
                 const AttentionShape& shape, const HeadNorms& norms, const float* cos_sin, std::int32_t half,
                 Stream& stream) {
  if (rows.most == 0) return;
  const dim3 grid(static_cast<unsigned>(rows.most), static_cast<unsigned>(shape.heads + 2 * shape.kv_heads));
  launch(rope_append_kernel, grid, kThreads, arena_bytes<float>(kThreads / kWarp), stream, qkv, rows.actual, row_info,
         sequences, shape, norms, cos_sin, half);
}

}  // namespace specmoe::kernels::cuda
