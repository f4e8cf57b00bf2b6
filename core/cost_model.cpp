#include "core/cost_model.h"

#include <algorithm>
#include <boost/math/tools/minima.hpp>
#include <cmath>
#include <limits>

namespace specmoe {

double expected_experts(int experts, int chosen, double rows, double correlation) {
  const double independent = 1 + (1 - correlation) * (rows - 1);
  return experts * (1 - std::pow(1 - static_cast<double>(chosen) / experts, independent));
}

double expected_experts(const ModelInfo& info, double rows, double correlation) {
  if (info.experts == 0) return 0;
  return expected_experts(info.experts, info.experts_per_token, rows, std::isnan(correlation) ? 0 : correlation);
}

double fit_routing_correlation(int experts, int chosen, std::span<const CountedExperts> counted) {
  const auto tells = [](const CountedExperts& count) { return count.rows > 1; };
  if (experts <= chosen || std::none_of(counted.begin(), counted.end(), tells)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const auto error = [&](double correlation) {
    double sum = 0;
    for (const CountedExperts& count : counted) {
      const double off = expected_experts(experts, chosen, count.rows, correlation) - count.distinct;
      sum += off * off;
    }
    return sum;
  };
  constexpr int kBits = 20;
  return boost::math::tools::brent_find_minima(error, -1.0, 1.0, kBits).first;
}

PassWork pass_work(const ModelInfo& info, double rows, double context, double experts) {
  const double per_expert = static_cast<double>(info.expert_bytes) * info.moe_layers;
  const double dense = static_cast<double>(info.active_weight_bytes) - per_expert * info.experts_per_token;
  const double cached = static_cast<double>(info.kv_bytes_per_token) * (context + rows);
  return {dense + per_expert * experts + cached, 2 * rows * static_cast<double>(info.active_parameters)};
}

double pass_seconds(const PassWork& work, const MachineRates& rates) {
  const double multiplying = rates.operations > 0 ? work.operations / rates.operations : 0;
  return std::max(work.bytes / rates.bytes, multiplying);
}

}  // namespace specmoe
