#pragma once

// The products of all rows with one weight, which a team shares.

#include "experiments/benchmarks/kernel_cases.h"
#include "kernels/linear.h"
#include "kernels/sampling.h"

namespace specmoe::bench {

struct Linear {
  ThreadPool& team;
  Backend backend;
  std::shared_ptr<const PackedMatrix> weight;
  FloatRows x, out;

  Linear(const Setup& setup, std::shared_ptr<const PackedMatrix> kept, std::int64_t rows, Noise noise = Noise(1))
      : team(setup.team),
        backend(setup.backend),
        weight(std::move(kept)),
        x(rows, weight->cols(), noise),
        out(rows, weight->rows()) {}

  void run() {
    const auto multiply = kernels::packed_linear.up_to(backend);
    team.run([&](ThreadPool::Member& member) {
      multiply(x.view(), *weight, nullptr, {}, out.view(), weight->share(member.shard()));
    });
  }
  std::string check() {
    run();
    const FloatRows expected(x.view().rows, weight->rows());
    return of_some_panels(weight->panels(), [&](std::int64_t panel) {
      kernels::packed_linear.on(Backend::kScalar)(x.view(), *weight, nullptr, {}, expected.view(),
                                                  Range{panel, panel + 1});
      return difference(out.view(), expected.view(), columns_of(panel), kSums);
    });
  }
};

struct LinearArgmax {
  Linear product;                                     // makes the rows that this one never writes
  std::vector<std::vector<kernels::BestLogit>> best;  // by thread, then row
  std::vector<kernels::BestLogit> found;

  LinearArgmax(const Setup& setup, std::shared_ptr<const PackedMatrix> weight, std::int64_t rows)
      : product(setup, std::move(weight), rows), best(static_cast<std::size_t>(setup.team.size())) {
    // A cache line or more between the results of two threads.
    for (auto& own : best) own.resize(static_cast<std::size_t>(rows) + 16);
  }

  void run() {
    const auto multiply = kernels::linear_argmax.up_to(product.backend);
    product.team.run([&](ThreadPool::Member& member) {
      multiply(product.x.view(), *product.weight, nullptr, {},
               best[static_cast<std::size_t>(member.shard().index)].data(), member.shard());
    });
    found.assign(static_cast<std::size_t>(product.x.view().rows), {});
    for (const auto& own : best) {
      for (std::size_t t = 0; t < found.size(); ++t) found[t].offer(own[t]);
    }
  }
  /// Against the best of whole rows, which has to be the same to the bit, and the scalar kernel at that place.
  std::string check() {
    run();
    product.run();
    const PackedMatrix& weight = *product.weight;
    std::vector<std::int32_t> expected(found.size());
    kernels::row_argmax.on(Backend::kScalar)(product.out.view(), expected.data());
    std::vector<kernels::BestLogit> scalar(found.size());
    for (std::size_t t = 0; t < found.size(); ++t) {
      if (expected[t] < 0) return concat("row ", t, ": products are no numbers");
      const float logit = product.out.view().row(static_cast<std::int64_t>(t))[expected[t]];
      if (found[t].index != expected[t] || found[t].value != logit) {
        return concat("row ", t, ": got ", found[t].value, " at ", found[t].index, ", scalar finds ", logit, " at ",
                      expected[t], " of the whole row");
      }
      const auto panel = static_cast<int>(expected[t] / PackedMatrix::kPanel);
      kernels::linear_argmax.on(Backend::kScalar)(product.x.view(), weight, nullptr, {}, scalar.data(),
                                                  {panel, static_cast<int>(weight.panels())});
      if (!(std::abs(scalar[t].value - logit) <= kSums.absolute + kSums.relative * std::abs(logit))) {
        return concat("row ", t, ": got ", logit, " at ", expected[t], ", scalar gives ", scalar[t].value);
      }
    }
    return {};
  }
};

inline std::vector<Case> linear_cases(const Setup& setup, DType dtype, std::int64_t inputs) {
  Noise noise(2);
  const std::int64_t outputs = outputs_of(setup.weight_bytes, 1, inputs, dtype);
  const auto weight = std::make_shared<const PackedMatrix>(noise_matrix(outputs, inputs, dtype, setup.backend, noise));
  std::vector<Case> cases;
  for (const char* op : {"packed_linear", "linear_argmax"}) {
    for (const std::int64_t rows : {1, 2, 4, 8, 16}) {
      Case what = {op, {{"dtype", std::string(kernels::dtype_name(dtype))}, {"K", inputs}, {"N", outputs}}, rows};
      const bool best_alone = what.op == "linear_argmax";
      const double outs = best_alone ? sizeof(kernels::BestLogit) : static_cast<double>(outputs) * sizeof(float);
      what.bytes = static_cast<double>(weight->bytes()) + static_cast<double>(rows) * (4.0 * inputs + outs);
      what.operations = 2.0 * static_cast<double>(rows * inputs * outputs);
      what.arithmetic = setup.arithmetic(dtype);
      what.team = &setup.team;
      cases.push_back(best_alone ? case_of(std::make_shared<LinearArgmax>(setup, weight, rows), what)
                                 : case_of(std::make_shared<Linear>(setup, weight, rows), what));
    }
  }
  return cases;
}

}  // namespace specmoe::bench
