#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

void packed_linear_simd(Rows<const float> x, const PackedMatrix& weight, const float* bias, Rows<const float> residual,
                        Rows<float> out, Shard shard) {
  if (!takes(weight.dtype())) {
    return packed_linear.on(Backend::kAvx512)(x, weight, bias, residual, out, shard);
  }
  const Range share = split(weight.panels(), shard);
  const auto row = [&](std::int64_t t) { return x.row(t); };
  multiply(x.rows, row, weight, share.begin, share.end, nullptr,
           [&](std::int64_t first, int rows, std::int64_t panel, int panels, const float* sums) {
             const std::int64_t begin = panel * kPanel;
             const std::int64_t end = std::min(weight.rows(), begin + panels * kPanel);
             for (int r = 0; r < rows; ++r, sums += kGroupOutputs) {
               const float* added = residual.data == nullptr ? nullptr : residual.row(first + r);
               float* to = out.row(first + r);
               for_each_vector(begin, end, [&](std::int64_t n, auto part) {
                 Floats y = load(sums + (n - begin));
                 if (bias != nullptr) y = add(y, part.load(bias + n));
                 if (added != nullptr) y = add(y, part.load(added + n));
                 part.store(to + n, y);
               });
             }
           });
}

SPECMOE_KERNEL(packed_linear, kBackend, packed_linear_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
