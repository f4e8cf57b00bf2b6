#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

void packed_linear_simd(Rows<const float> x, const PackedMatrix& weight, const float* bias, Rows<const float> residual,
                        Rows<float> out, const Ranges& panels) {
  if (!takes(weight.dtype())) {
    return packed_linear.on(kAllTypes)(x, weight, bias, residual, out, panels);
  }
  const auto row = [&](std::int64_t t) { return x.row(t); };
  for (const Range* part = panels.begin(); part != panels.end(); ++part) {
    const std::byte* next = part + 1 != panels.end() ? weight.panel(part[1].begin) : nullptr;
    multiply(x.rows, row, weight, part->begin, part->end, next,
             [&](std::int64_t first, int rows, std::int64_t panel, int count, const float* sums) {
               const std::int64_t begin = panel * kPanel;
               const std::int64_t end = std::min(weight.rows(), begin + count * kPanel);
               for (int r = 0; r < rows; ++r, sums += kGroupOutputs) {
                 const float* added = residual.data == nullptr ? nullptr : residual.row(first + r);
                 float* to = out.row(first + r);
                 for_each_vector(begin, end, [&](std::int64_t n, auto lanes) {
                   Floats y = load(sums + (n - begin));
                   if (bias != nullptr) y = add(y, lanes.load(bias + n));
                   if (added != nullptr) y = add(y, lanes.load(added + n));
                   lanes.store(to + n, y);
                 });
               }
             });
  }
}

void linear_argmax_simd(Rows<const float> x, const PackedMatrix& weight, const float* bias, const LogitShape& shape,
                        BestLogit* best, Shard shard) {
  if (!takes(weight.dtype())) return linear_argmax.on(kAllTypes)(x, weight, bias, shape, best, shard);
  const Range share = weight.share(shard);
  const bool as_they_are = bias == nullptr && shape.plain();
  std::fill_n(best, x.rows, BestLogit{});
  const auto row = [&](std::int64_t t) { return x.row(t); };
  multiply(x.rows, row, weight, share.begin, share.end, nullptr,
           [&](std::int64_t first, int rows, std::int64_t panel, int panels, const float* sums) {
             const std::int64_t begin = panel * kPanel;
             const std::int64_t count = std::min<std::int64_t>(panels * kPanel, weight.rows() - begin);
             alignas(64) float shaped[kGroupOutputs];
             for (int r = 0; r < rows; ++r, sums += kGroupOutputs) {
               const float* logits = as_they_are ? sums : shaped;
               if (!as_they_are) {
                 std::copy_n(sums, count, shaped);
                 for (std::int64_t n = 0; bias != nullptr && n < count; ++n) shaped[n] += bias[begin + n];
                 shape.apply(shaped, count);
               }
               const float top = largest(logits, count);
               const std::int32_t at = first_equal(logits, count, top);
               if (at >= 0) best[first + r].offer({top, static_cast<std::int32_t>(begin) + at});
             }
           });
}

SPECMOE_KERNEL(packed_linear, kBackend, packed_linear_simd);
SPECMOE_KERNEL(linear_argmax, kBackend, linear_argmax_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
