#pragma once

// Kernels that go over whole rows. In a model every thread does all of this for itself, so one does here.

#include <tuple>

#include "experiments/benchmarks/kernel_cases.h"
#include "kernels/layer_norm.h"
#include "kernels/moe_router.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"

namespace specmoe::bench {

constexpr std::int64_t kNormWidth = 2048;
constexpr std::int64_t kVocabulary = 32000;

/// A kernel that leaves its results in `out`, whatever else it may overwrite.
///
/// compute  compute(back end, where results go)
struct RowCall {
  Backend backend;
  FloatRows out;
  Tolerance allowed;
  std::function<void(Backend, const FloatRows&)> compute;

  void run() { compute(backend, out); }
  std::string check() {
    run();
    const FloatRows expected(out.view().rows, out.view().cols);
    compute(Backend::kScalar, expected);
    return difference(out, expected, allowed);
  }
};

/// per_element  operations of one number of the result
inline Case row_case(const Setup& setup, Case what, double per_element, std::shared_ptr<RowCall> call) {
  what.operations = per_element * call->out.bytes() / sizeof(float);
  what.arithmetic = setup.arithmetic(DType::kFloat32);
  what.team = &setup.alone;
  return case_of(std::move(call), std::move(what));
}

inline std::vector<Case> norm_cases(const Setup& setup) {
  std::vector<Case> cases;
  for (const std::string op : {"rms_norm", "layer_norm"}) {
    for (const std::int64_t rows : {1, 8}) {
      Noise noise(8);
      const auto x = std::make_shared<FloatRows>(rows, kNormWidth, noise);
      const auto weight = std::make_shared<FloatRows>(2, kNormWidth, noise);  // and bias
      const bool rms = op == "rms_norm";
      const auto compute = [=](Backend on, const FloatRows& out) {
        if (rms) return kernels::rms_norm.up_to(on)(x->view(), weight->data(), 1e-5F, out.view());
        kernels::layer_norm.up_to(on)(x->view(), weight->data(), weight->view().row(1), 1e-5F, out.view());
      };
      Case what = {op, {{"D", kNormWidth}}, rows};
      what.bytes = 2 * x->bytes() + weight->bytes() / (rms ? 2 : 1);
      // Square and sum, scale and weight; a mean to sum and subtract twice and a bias come on top.
      cases.push_back(row_case(setup, what, rms ? 4 : 8,
                               std::make_shared<RowCall>(setup.backend, FloatRows(rows, kNormWidth), kSums, compute)));
    }
  }
  return cases;
}

/// Turns in place, so `x` is turned further by every run; a check begins with the same rows on both sides.
struct Rope {
  Backend backend;
  std::int64_t half;
  FloatRows start, x, cos_sin;
  std::vector<std::int32_t> position;

  Rope(const Setup& setup, std::int64_t rows, std::int64_t head_dim, Noise noise = Noise(9))
      : backend(setup.backend),
        half(head_dim / 2),
        start(rows, head_dim, noise),
        x(rows, head_dim),
        cos_sin(rows, head_dim) {
    for (std::int64_t t = 0; t < rows; ++t) {
      position.push_back(static_cast<std::int32_t>(rows - 1 - t));
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle = 3.0F * noise.number();
        cos_sin.view().row(t)[i] = std::cos(angle);
        cos_sin.view().row(t)[half + i] = std::sin(angle);
      }
    }
    restart(x);
  }

  void restart(const FloatRows& rows) const { std::ranges::copy(start.values(), rows.data()); }
  void turn(Backend on, const FloatRows& rows) const {
    kernels::rope.up_to(on)(rows.view(), cos_sin.data(), half, position.data());
  }
  void run() { turn(backend, x); }
  std::string check() {
    restart(x);
    run();
    const FloatRows expected(x.view().rows, x.view().cols);
    restart(expected);
    turn(Backend::kScalar, expected);
    return difference(x, expected, kSums);
  }
};

inline std::vector<Case> rope_cases(const Setup& setup) {
  std::vector<Case> cases;
  for (const std::int64_t head_dim : {64, 128}) {
    for (const std::int64_t rows : {1, 8}) {
      const auto call = std::make_shared<Rope>(setup, rows, head_dim);
      Case what = {"rope", {{"d", head_dim}}, rows};
      what.bytes = 2 * call->x.bytes() + call->cos_sin.bytes();
      what.operations = 3.0 * static_cast<double>(rows * head_dim);
      what.arithmetic = setup.arithmetic(DType::kFloat32);
      what.team = &setup.alone;
      cases.push_back(case_of(call, what));
    }
  }
  return cases;
}

/// The kernel overwrites its logits: a run copies them first, which is part of its time.
struct Router {
  Backend backend;
  kernels::Routing routing;
  FloatRows source, logits, weight;
  std::vector<std::int32_t> expert;

  Router(const Setup& setup, std::int64_t rows, std::int64_t experts, std::int64_t k, Noise noise = Noise(10))
      : backend(setup.backend), source(rows, experts), logits(rows, experts), weight(rows, k) {
    routing.experts_per_token = static_cast<int>(k);
    expert.resize(static_cast<std::size_t>(rows * k));
    for (float& logit : source.values()) logit = 1e-4F * static_cast<float>(noise.bits() % 40000) - 2.0F;
  }

  void route(Backend on, std::int32_t* chosen, const FloatRows& weights) const {
    std::ranges::copy(source.values(), logits.data());
    kernels::moe_router.up_to(on)(logits.view(), routing, nullptr, chosen, weights.data());
  }
  void run() { route(backend, expert.data(), weight); }
  std::string check() {
    run();
    std::vector<std::int32_t> experts(expert.size());
    const FloatRows weights(weight.view().rows, weight.view().cols);
    route(Backend::kScalar, experts.data(), weights);
    const std::string found = difference(expert, experts);
    return found.empty() ? difference(weight, weights, kSums) : found;
  }
};

inline std::vector<Case> router_cases(const Setup& setup) {
  std::vector<Case> cases;
  for (const auto& [experts, k] : {std::pair<std::int64_t, std::int64_t>{8, 2}, {64, 8}}) {
    for (const std::int64_t rows : {1, 4, 8, 16}) {
      const auto call = std::make_shared<Router>(setup, rows, experts, k);
      Case what = {"moe_router", {{"E", experts}, {"k", k}}, rows};
      what.bytes = 2 * call->source.bytes() + 2 * call->weight.bytes();  // ids are as wide as weights
      what.team = &setup.alone;
      cases.push_back(case_of(call, what));
    }
  }
  return cases;
}

struct RowArgmax {
  Backend backend;
  FloatRows x;
  std::vector<std::int32_t> best;

  RowArgmax(const Setup& setup, std::int64_t rows, Noise noise = Noise(11))
      : backend(setup.backend), x(rows, kVocabulary, noise), best(static_cast<std::size_t>(rows)) {}

  void run() { kernels::row_argmax.up_to(backend)(x.view(), best.data()); }
  /// Noise has few values, so the largest is there many times and the first of them wanted.
  std::string check() {
    run();
    std::vector<std::int32_t> expected(best.size());
    kernels::row_argmax.on(Backend::kScalar)(x.view(), expected.data());
    return difference(best, expected);
  }
};

inline std::vector<Case> argmax_cases(const Setup& setup) {
  std::vector<Case> cases;
  for (const std::int64_t rows : {1, 8}) {
    Case what = {"row_argmax", {{"V", kVocabulary}}, rows};
    what.bytes = 4.0 * static_cast<double>(rows * kVocabulary);
    what.team = &setup.alone;
    cases.push_back(case_of(std::make_shared<RowArgmax>(setup, rows), what));
  }
  return cases;
}

/// Logits fall as in a text: the token of rank r has a share of about r^-1.56, and 95 % belong to some hundred tokens.
inline std::vector<Case> sampling_cases(const Setup& setup) {
  Noise noise(12);
  const auto logits = std::make_shared<FloatRows>(1, kVocabulary);
  for (float& logit : logits->values()) {
    const float rank = 1.0F + static_cast<float>(noise.bits() % (std::uint64_t{1} << 24)) * (kVocabulary / 0x1p24F);
    logit = -1.25F * std::log(rank);
  }
  const auto scratch = std::make_shared<std::vector<std::int32_t>>(kVocabulary);
  std::vector<Case> cases;
  constexpr std::tuple<std::int64_t, double, double> kCuts[] = {
      {0, 1.0, 0.0}, {50, 1.0, 0.0}, {0, 0.95, 0.0}, {0, 1.0, 0.05}};
  for (const auto& [top_k, top_p, min_p] : kCuts) {
    const kernels::SamplingRule rule = {0.8F, top_k, static_cast<float>(top_p), static_cast<float>(min_p)};
    const auto compute = [=](Backend on, const FloatRows& probs) {
      kernels::sampling_probs.up_to(on)(logits->data(), kVocabulary, rule, probs.data(), scratch->data());
    };
    Case what = {"sampling_probs", {{"V", kVocabulary}, {"top_k", top_k}, {"top_p", top_p}, {"min_p", min_p}}, 1};
    what.bytes = 2 * logits->bytes();
    const auto call = std::make_shared<RowCall>(setup.backend, FloatRows(1, kVocabulary), kProbabilities, compute);
    cases.push_back(row_case(setup, what, 0, call));
  }
  return cases;
}

}  // namespace specmoe::bench
