#pragma once

// The products of a mixture of experts, which a team shares.

#include "experiments/benchmarks/kernel_cases.h"
#include "kernels/moe_ffn.h"

namespace specmoe::bench {

/// Passes of T rows through one mixture, whose experts are chosen anew for each: one choice alone would stay in the
/// cache.
struct Passes {
  std::int64_t rows, k;
  std::vector<kernels::MoePlan> plans;
  double experts = 0;  // distinct ones of a pass, mean

  Passes(std::int64_t t, std::int64_t count, std::int64_t per_token) : rows(t), k(per_token) {
    Noise noise(3);
    plans.resize(static_cast<std::size_t>(std::max<std::int64_t>(2, 16 / rows)));
    std::vector<std::int32_t> all(static_cast<std::size_t>(count)), chosen;
    for (std::size_t e = 0; e < all.size(); ++e) all[e] = static_cast<std::int32_t>(e);
    for (kernels::MoePlan& plan : plans) {
      chosen.clear();
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t rank = 0; rank < k; ++rank) {
          std::swap(all[static_cast<std::size_t>(rank)],
                    all[static_cast<std::size_t>(rank) + noise.bits() % static_cast<std::uint64_t>(count - rank)]);
          chosen.push_back(all[static_cast<std::size_t>(rank)]);
        }
      }
      plan.build(chosen.data(), rows, k, count);
      experts += static_cast<double>(plan.experts.size()) / static_cast<double>(plans.size());
    }
  }

  /// In a buffer where experts of so many bytes lie in a row.
  std::vector<Range> reads(std::size_t bytes) const {
    const auto size = static_cast<std::int64_t>(bytes / 512 * 512);
    std::vector<Range> parts;
    for (const kernels::MoePlan& plan : plans) {
      for (const std::int64_t expert : plan.experts) parts.push_back({expert * size, (expert + 1) * size});
    }
    return parts;
  }
};

using Experts = std::shared_ptr<const std::vector<PackedMatrix>>;

struct MoeUpPasses {
  ThreadPool& team;
  Backend backend;
  Experts gate_up;
  Passes passes;
  FloatRows x, hidden;

  MoeUpPasses(const Setup& setup, Experts kept, const Passes& all, Noise noise = Noise(4))
      : team(setup.team),
        backend(setup.backend),
        gate_up(std::move(kept)),
        passes(all),
        x(all.rows, gate_up->front().cols(), noise),
        hidden(all.rows * all.k, gate_up->front().rows() / 2) {}

  void run() {
    const auto up = kernels::moe_up.up_to(backend);
    for (const kernels::MoePlan& plan : passes.plans) {
      team.run(
          [&](ThreadPool::Member& member) { up(x.view(), gate_up->data(), plan, {}, hidden.view(), member.shard()); });
    }
  }
  /// The last pass is what is left of a run.
  std::string check() {
    run();
    const FloatRows expected(hidden.view().rows, hidden.view().cols);
    const std::int64_t panels = hidden.view().cols / PackedMatrix::kPanel;
    return of_some_panels(panels, [&](std::int64_t panel) {
      kernels::moe_up.on(Backend::kScalar)(x.view(), gate_up->data(), passes.plans.back(), {}, expected.view(),
                                           {static_cast<int>(panel), static_cast<int>(panels)});
      return difference(hidden.view(), expected.view(), columns_of(panel), kSums);
    });
  }
  double row_bytes() const { return x.bytes() + hidden.bytes(); }
};

struct MoeDownPasses {
  ThreadPool& team;
  Backend backend;
  Experts down;
  Passes passes;
  FloatRows hidden, weight, residual, scratch, out;

  MoeDownPasses(const Setup& setup, Experts kept, const Passes& all, Noise noise = Noise(5))
      : team(setup.team),
        backend(setup.backend),
        down(std::move(kept)),
        passes(all),
        hidden(all.rows * all.k, down->front().cols(), noise),
        weight(all.rows, all.k, noise),
        residual(all.rows, down->front().rows(), noise),
        scratch(all.rows * all.k, down->front().rows()),
        out(all.rows, down->front().rows()) {}

  void run() {
    const auto combine = kernels::moe_down.up_to(backend);
    for (const kernels::MoePlan& plan : passes.plans) {
      team.run([&](ThreadPool::Member& member) {
        combine(hidden.view(), down->data(), plan, weight.data(), nullptr, residual.view(), scratch.view(), out.view(),
                member.shard());
      });
    }
  }
  std::string check() {
    run();
    const FloatRows expected(out.view().rows, out.view().cols);
    const std::int64_t panels = out.view().cols / PackedMatrix::kPanel;
    return of_some_panels(panels, [&](std::int64_t panel) {
      kernels::moe_down.on(Backend::kScalar)(hidden.view(), down->data(), passes.plans.back(), weight.data(), nullptr,
                                             residual.view(), scratch.view(), expected.view(),
                                             {static_cast<int>(panel), static_cast<int>(panels)});
      return difference(out.view(), expected.view(), columns_of(panel), kSums);
    });
  }
  /// Scratch is written and read.
  double row_bytes() const { return hidden.bytes() + residual.bytes() + out.bytes() + 2 * scratch.bytes(); }
};

/// Call   MoeUpPasses or MoeDownPasses
/// shape  [outputs, inputs] of an expert's weight
template <class Call>
std::vector<Case> moe_cases(const Setup& setup, const char* op, std::int64_t count, std::int64_t k,
                            std::int64_t outputs, std::int64_t inputs, const nlohmann::ordered_json& shape) {
  Noise noise(6);
  const auto experts = std::make_shared<std::vector<PackedMatrix>>();
  for (std::int64_t e = 0; e < count; ++e) {
    experts->push_back(noise_matrix(outputs, inputs, DType::kBFloat16, setup.backend, noise));
  }
  std::vector<Case> cases;
  for (const std::int64_t rows : {1, 4, 8, 16}) {
    const Passes passes(rows, count, k);
    const auto call = std::make_shared<Call>(setup, experts, passes);
    const std::size_t expert_bytes = experts->front().bytes();
    Case what = {op, shape, rows};
    what.bytes = passes.experts * static_cast<double>(expert_bytes) + call->row_bytes();
    what.operations = 2.0 * static_cast<double>(rows * k * outputs * inputs);
    what.arithmetic = setup.arithmetic(DType::kBFloat16);
    what.team = &setup.team;
    what.calls = static_cast<int>(passes.plans.size());
    what.reads = passes.reads(expert_bytes);
    cases.push_back(case_of(call, what));
  }
  return cases;
}

constexpr std::int64_t kHidden = 1024;  // D of a mixture

inline std::vector<Case> moe_up_cases(const Setup& setup, std::int64_t experts, std::int64_t k) {
  const std::int64_t width = outputs_of(setup.weight_bytes / 2, experts, kHidden, DType::kBFloat16);
  return moe_cases<MoeUpPasses>(setup, "moe_up", experts, k, 2 * width, kHidden,
                                {{"E", experts}, {"k", k}, {"D", kHidden}, {"I", width}});
}

inline std::vector<Case> moe_down_cases(const Setup& setup, std::int64_t experts, std::int64_t k) {
  const std::int64_t width = outputs_of(setup.weight_bytes, experts, kHidden, DType::kBFloat16);
  return moe_cases<MoeDownPasses>(setup, "moe_down", experts, k, kHidden, width,
                                  {{"E", experts}, {"k", k}, {"D", kHidden}, {"I", width}});
}

}  // namespace specmoe::bench
