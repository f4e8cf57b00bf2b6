#include "kernels/check.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/panel_product.h"

namespace specmoe::kernels::cuda {
namespace {

/// A block per panel of outputs and 8 * kGroups rows.
template <class Weight, int kGroups>
__global__ void __launch_bounds__(kProductThreads)
    linear_kernel(Rows<const float> x, const std::int32_t* rows, DeviceMatrix weight, const float* bias,
                  Rows<const float> residual, Rows<float> out) {
  const int first = static_cast<int>(blockIdx.y) * kGroups * kGroupRows;
  const int count = *rows - first;
  if (count <= 0) return;
  float* cells = SharedArena().take<float>(kProductWarps * kGroups * kGroupCells);
  const std::byte* const panels[1] = {weight.data + blockIdx.x * weight.panel_bytes};
  multiply_panels<Weight, 1, kGroups>(
      panels, static_cast<int>(weight.cols), [&](int i) { return i < count ? x.row(first + i) : nullptr; }, cells);
  for (int index = static_cast<int>(threadIdx.x); index < kGroups * kGroupCells; index += kProductThreads) {
    const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kPanelOutputs + product_output(index);
    const int t = first + product_row(index);
    if (t >= *rows || n >= weight.rows) continue;
    float sum = product_sum<1, kGroups>(cells, 0, index);
    if (bias != nullptr) sum += bias[n];
    if (residual.data != nullptr) sum += residual.row(t)[n];
    out.row(t)[n] = sum;
  }
}

}  // namespace

void packed_linear(Rows<const float> x, RowCount rows, const DeviceMatrix& weight, const float* bias,
                   Rows<const float> residual, Rows<float> out, Stream& stream) {
  if (rows.most == 0) return;
  SPECMOE_CHECK(x.stride % 2 == 0, "packed_linear on cuda: expected rows an even number of floats apart, got ",
                x.stride);
  choose_product(weight.dtype, rows.most, [&](auto type, auto groups) {
    constexpr int kRows = groups * kGroupRows;
    const dim3 grid(static_cast<unsigned>((weight.rows + kPanelOutputs - 1) / kPanelOutputs),
                    static_cast<unsigned>((rows.most + kRows - 1) / kRows));
    launch(linear_kernel<decltype(type), groups>, grid, kProductThreads, product_bytes<1, groups>(), stream, x,
           rows.actual, weight, bias, residual, out);
  });
}

}  // namespace specmoe::kernels::cuda
