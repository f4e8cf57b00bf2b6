#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Whether the weights of a plan's experts are of a type that these tiles multiply; the back end kAllTypes takes all.
inline bool takes(const PackedMatrix* weights, const MoePlan& plan) {
  return plan.experts.empty() || takes(weights[plan.experts.front()].dtype());
}

/// Where panel `panel` of the next active expert lies; null after the last one.
inline const std::byte* next_expert(const PackedMatrix* weights, const MoePlan& plan, std::size_t active,
                                    std::int64_t panel) {
  return active + 1 < plan.experts.size() ? weights[plan.experts[active + 1]].panel(panel) : nullptr;
}

/// Makes hidden values of the products of gate and up, kWidth of them at column n of a pair.
struct PlainUp {
  void begin_expert(std::int32_t /*expert*/) {}
  template <class Part>
  Floats operator()(std::int64_t /*pair*/, std::int64_t /*n*/, Floats gate, Floats up, Part /*part*/) const {
    return mul(silu(gate), up);
  }
};

/// The same with everything MoeUp can ask for.
struct AnyUp {
  const MoeUp& how;
  std::int64_t width;
  const float* bias = nullptr;  // of the current expert

  void begin_expert(std::int32_t expert) {
    if (how.bias != nullptr) bias = how.bias + expert * 2 * width;
  }
  template <class Part>
  Floats operator()(std::int64_t pair, std::int64_t n, Floats gate, Floats up, Part part) const {
    if (how.input_weight != nullptr) {
      gate = mul(gate, broadcast(how.input_weight[pair]));
      up = mul(up, broadcast(how.input_weight[pair]));
    }
    if (bias != nullptr) {
      gate = add(gate, part.load(bias + n));
      up = add(up, part.load(bias + width + n));
    }
    if (how.activation.kind == Activation::Kind::kGeluTanh) return mul(gelu_tanh(gate), up);
    if (how.activation.kind == Activation::Kind::kSilu) return mul(silu(gate), up);
    const Floats limit = broadcast(how.activation.limit);
    const Floats low = min(limit, gate);
    const Floats kept = max(sub(zeros(), limit), min(limit, up));
    return mul(over_logistic(low, mul(broadcast(how.activation.alpha), low)), add(kept, broadcast(1.0f)));
  }
};

template <class Finish>
void moe_up_with(Finish finish, Rows<const float> x, const PackedMatrix* gate_up, const MoePlan& plan,
                 Rows<float> hidden, Shard shard) {
  const Range share = split((hidden.cols + kPanel - 1) / kPanel, shard);
  for (std::size_t a = 0; a < plan.experts.size(); ++a) {
    const std::int32_t* pairs = plan.pairs.data() + plan.offsets[a];
    const auto row = [&](std::int64_t i) { return x.row(pairs[i] / plan.k); };
    finish.begin_expert(plan.experts[a]);
    multiply<2>(plan.offsets[a + 1] - plan.offsets[a], row, gate_up[plan.experts[a]], 2 * share.begin, 2 * share.end,
                next_expert(gate_up, plan, a, 2 * share.begin),
                [&](std::int64_t first, int rows, std::int64_t panel, int panels, const float* sums) {
                  for (int r = 0; r < rows; ++r, sums += kGroupOutputs) {
                    for (int p = 0; p < panels; p += 2) {
                      const std::int64_t column = (panel + p) / 2 * kPanel;
                      const std::int64_t pair = pairs[first + r];
                      float* to = hidden.row(pair) + column;
                      const std::int64_t count = std::min<std::int64_t>(kPanel, hidden.cols - column);
                      for_each_vector(0, count, [&](std::int64_t n, auto part) {
                        const float* gate = sums + p * kPanel + n;
                        part.store(to + n, finish(pair, column + n, load(gate), load(gate + kPanel), part));
                      });
                    }
                  }
                });
  }
}

void moe_up_simd(Rows<const float> x, const PackedMatrix* gate_up, const MoePlan& plan, const MoeUp& how,
                 Rows<float> hidden, Shard shard) {
  if (!takes(gate_up, plan)) return moe_up.on(kAllTypes)(x, gate_up, plan, how, hidden, shard);
  if (how.activation.kind == Activation::Kind::kSilu && how.input_weight == nullptr && how.bias == nullptr) {
    moe_up_with(PlainUp{}, x, gate_up, plan, hidden, shard);
  } else {
    moe_up_with(AnyUp{how, hidden.cols}, x, gate_up, plan, hidden, shard);
  }
}

/// out[t, columns] = residual[t] + the weighted partial results of row t, in rank order.
inline void combine(const MoePlan& plan, const float* weight, Rows<const float> residual, Rows<const float> partial,
                    Rows<float> out, Range columns) {
  for (std::int64_t t = 0; t < out.rows; ++t) {
    for_each_vector(columns.begin, columns.end, [&](std::int64_t n, auto part) {
      Floats y = residual.data == nullptr ? zeros() : part.load(residual.row(t) + n);
      for (std::int64_t pair = t * plan.k; pair < (t + 1) * plan.k; ++pair) {
        y = fma(broadcast(weight[pair]), part.load(partial.row(pair) + n), y);
      }
      part.store(out.row(t) + n, y);
    });
  }
}

void moe_down_simd(Rows<const float> hidden, const PackedMatrix* down, const MoePlan& plan, const float* weight,
                   const float* bias, Rows<const float> residual, Rows<float> scratch, Rows<float> out, Shard shard) {
  if (!takes(down, plan)) {
    return moe_down.on(kAllTypes)(hidden, down, plan, weight, bias, residual, scratch, out, shard);
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
               const float* added = bias == nullptr ? nullptr : bias + plan.experts[a] * out.cols + begin;
               for (int r = 0; r < rows; ++r, sums += kGroupOutputs) {
                 float* to = scratch.row(pairs[first + r]) + begin;
                 for_each_vector(0, count, [&](std::int64_t n, auto part) {
                   Floats y = load(sums + n);
                   if (added != nullptr) y = add(y, part.load(added + n));
                   part.store(to + n, y);
                 });
               }
             });
  }
  combine(plan, weight, residual, scratch, out, columns);
}

SPECMOE_KERNEL(moe_up, kBackend, moe_up_simd);
SPECMOE_KERNEL(moe_down, kBackend, moe_down_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
