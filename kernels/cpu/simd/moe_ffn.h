#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Whether the weights of a plan's experts are for the kernels of float32.
inline bool for_float32(const PackedMatrix* weights, const MoePlan& plan) {
  return kFloat32Backend != kBackend && !plan.experts.empty() &&
         weights[plan.experts.front()].dtype() == DType::kFloat32;
}

/// Where panel `panel` of the next active expert lies; null after the last one.
inline const std::byte* next_expert(const PackedMatrix* weights, const MoePlan& plan, std::size_t active,
                                    std::int64_t panel) {
  return active + 1 < plan.experts.size() ? weights[plan.experts[active + 1]].panel(panel) : nullptr;
}

void moe_up_simd(Rows<const float> x, const PackedMatrix* gate_up, const MoePlan& plan, Rows<float> hidden,
                 Shard shard) {
  if (for_float32(gate_up, plan)) return moe_up.on(kFloat32Backend)(x, gate_up, plan, hidden, shard);
  const Range share = split((hidden.cols + kPanel - 1) / kPanel, shard);
  for (std::size_t a = 0; a < plan.experts.size(); ++a) {
    const std::int32_t* pairs = plan.pairs.data() + plan.offsets[a];
    const auto row = [&](std::int64_t i) { return x.row(pairs[i] / plan.k); };
    multiply(plan.offsets[a + 1] - plan.offsets[a], row, gate_up[plan.experts[a]], 2 * share.begin, 2 * share.end,
             next_expert(gate_up, plan, a, 2 * share.begin),
             [&](std::int64_t first, int rows, std::int64_t panel, int panels, const float* sums) {
               for (int r = 0; r < rows; ++r, sums += kGroupOutputs) {
                 for (int p = 0; p < panels; p += 2) {
                   const std::int64_t column = (panel + p) / 2 * kPanel;
                   float* to = hidden.row(pairs[first + r]) + column;
                   const std::int64_t count = std::min<std::int64_t>(kPanel, hidden.cols - column);
                   for_each_vector(0, count, [&](std::int64_t n, auto part) {
                     const float* gate = sums + p * kPanel + n;
                     part.store(to + n, mul(silu(load(gate)), load(gate + kPanel)));
                   });
                 }
               }
             });
  }
}

/// out[t, columns] = residual[t] + the weighted partial results of row t, in rank order.
inline void combine(const MoePlan& plan, const float* weight, Rows<const float> residual, Rows<const float> partial,
                    Rows<float> out, Range columns) {
  for (std::int64_t t = 0; t < out.rows; ++t) {
    for_each_vector(columns.begin, columns.end, [&](std::int64_t n, auto part) {
      Floats y = part.load(residual.row(t) + n);
      for (std::int64_t pair = t * plan.k; pair < (t + 1) * plan.k; ++pair) {
        y = fma(broadcast(weight[pair]), part.load(partial.row(pair) + n), y);
      }
      part.store(out.row(t) + n, y);
    });
  }
}

void moe_down_simd(Rows<const float> hidden, const PackedMatrix* down, const MoePlan& plan, const float* weight,
                   Rows<const float> residual, Rows<float> scratch, Rows<float> out, Shard shard) {
  if (for_float32(down, plan)) {
    return moe_down.on(kFloat32Backend)(hidden, down, plan, weight, residual, scratch, out, shard);
  }
  const Range columns = split(out.cols, shard, kPanel);
  const std::int64_t begin_panel = columns.begin / kPanel;
  const std::int64_t end_panel = (columns.end + kPanel - 1) / kPanel;
  for (std::size_t a = 0; a < plan.experts.size(); ++a) {
    const std::int32_t* pairs = plan.pairs.data() + plan.offsets[a];
    const auto row = [&](std::int64_t i) { return hidden.row(pairs[i]); };
    multiply(plan.offsets[a + 1] - plan.offsets[a], row, down[plan.experts[a]], begin_panel, end_panel,
             next_expert(down, plan, a, begin_panel),
             [&](std::int64_t first, int rows, std::int64_t panel, int panels, const float* sums) {
               const std::int64_t begin = panel * kPanel;
               const std::int64_t count = std::min<std::int64_t>(panels * kPanel, columns.end - begin);
               for (int r = 0; r < rows; ++r) {
                 std::copy_n(sums + r * kGroupOutputs, count, scratch.row(pairs[first + r]) + begin);
               }
             });
  }
  combine(plan, weight, residual, scratch, out, columns);
}

SPECMOE_KERNEL(moe_up, kBackend, moe_up_simd);
SPECMOE_KERNEL(moe_down, kBackend, moe_down_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
