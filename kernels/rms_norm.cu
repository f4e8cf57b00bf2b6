#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// A block per row.
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(Rows<const float> x, const std::int32_t* rows, const float* weight, float eps, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  float* scratch = SharedArena().take<float>(kThreads / kWarp);
  const float* in = x.row(t);
  float squares = 0;
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) squares = fmaf(in[d], in[d], squares);
  const float mean = block_sum(squares, scratch) / static_cast<float>(x.cols);
  const float scale = 1.0f / sqrtf(mean + eps);
  for (std::int64_t d = threadIdx.x; d < x.cols; d += kThreads) out.row(t)[d] = weight[d] * (in[d] * scale);
}

}  // namespace

void rms_norm(Rows<const float> x, RowCount rows, const float* weight, float eps, Rows<float> out, Stream& stream) {
  if (rows.most == 0) return;
  launch(rms_norm_kernel, static_cast<unsigned>(rows.most), kThreads, arena_bytes<float>(kThreads / kWarp), stream, x,
         rows.actual, weight, eps, out);
}

}  // namespace specmoe::kernels::cuda
