#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// A block per row. Without a bias nothing is subtracted: an RMS norm.
///
/// kAdds  out[t] += scale * norm instead of out[t] = norm
template <bool kAdds>
__global__ void __launch_bounds__(kThreads) norm_kernel(Rows<const float> x, const std::int32_t* rows, DeviceNorm norm,
                                                        float eps, float scale, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  SharedArena arena;
  float* sums = arena.take<float>(kThreads / kWarp);
  float* squares = arena.take<float>(kThreads / kWarp);
  const float* in = x.row(t);
  const auto count = static_cast<float>(x.cols);
  float mean = 0.0f;
  if (norm.bias != nullptr) {
    float sum = 0.0f;
    for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) sum += in[d];
    mean = block_sum(sum, sums) / count;
  }
  float square = 0.0f;
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) square = fmaf(in[d] - mean, in[d] - mean, square);
  const float factor = 1.0f / sqrtf(block_sum(square, squares) / count + eps);
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) {
    float value = norm.weight[d] * ((in[d] - mean) * factor);
    if (norm.bias != nullptr) value += norm.bias[d];
    out.row(t)[d] = kAdds ? fmaf(scale, value, out.row(t)[d]) : value;
  }
}

constexpr std::size_t kSharedBytes = 2 * arena_bytes<float>(kThreads / kWarp);

}  // namespace

void layer_norm(Rows<const float> x, RowCount rows, const DeviceNorm& norm, float eps, Rows<float> out,
                Stream& stream) {
  if (rows.most == 0) return;
  launch(norm_kernel<false>, static_cast<unsigned>(rows.most), kThreads, kSharedBytes, stream, x, rows.actual, norm,
         eps, 1.0f, out);
}

void add_normed(Rows<const float> branch, RowCount rows, const DeviceNorm& norm, float eps, float scale, Rows<float> x,
                Stream& stream) {
  if (rows.most == 0) return;
  launch(norm_kernel<true>, static_cast<unsigned>(rows.most), kThreads, kSharedBytes, stream, branch, rows.actual, norm,
         eps, scale, x);
}

}  // namespace specmoe::kernels::cuda
