#include "tree/verify_times.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "kernels/check.h"

namespace specmoe {

VerifyTimes::VerifyTimes(std::string topology, std::vector<std::pair<int, double>> measured)
    : measured_(std::move(measured)) {
  SPECMOE_CHECK(!measured_.empty(), topology, ": verify_times must hold at least one nodes:time pair");
  for (std::size_t i = 0; i < measured_.size(); ++i) {
    const auto [nodes, time] = measured_[i];
    SPECMOE_CHECK(nodes > (i == 0 ? 0 : measured_[i - 1].first), topology,
                  ": verify_times must ascend in nodes from 1 or more, got ", nodes);
    SPECMOE_CHECK(std::isfinite(time) && time > 0.0, topology, ": verify_times must be above 0, got ", time, " for ",
                  nodes, " nodes");
  }
}

VerifyTimes VerifyTimes::parse(const std::string& topology, const std::string& text) {
  std::vector<std::pair<int, double>> measured;
  for (const char *at = text.data(), *end = at + text.size();; ++at) {
    auto& [nodes, time] = measured.emplace_back();
    const auto count = std::from_chars(at, end, nodes);
    const bool colon = count.ec == std::errc() && count.ptr != end && *count.ptr == ':';
    const auto value = std::from_chars(colon ? count.ptr + 1 : end, end, time);
    SPECMOE_CHECK(value.ec == std::errc() && (value.ptr == end || *value.ptr == '/'), topology,
                  ": verify_times must be nodes:time pairs such as 1:10/16:12, got '", text, "'");
    at = value.ptr;
    if (at == end) break;
  }
  return {topology, std::move(measured)};
}

double VerifyTimes::at(int nodes) const {
  const auto above = std::find_if(measured_.begin(), measured_.end(),
                                  [nodes](const auto& measured) { return measured.first >= nodes; });
  if (above == measured_.end()) return std::numeric_limits<double>::infinity();
  if (above == measured_.begin()) return above->second;
  const auto below = above - 1;
  const double share = static_cast<double>(nodes - below->first) / (above->first - below->first);
  return below->second + share * (above->second - below->second);
}

}  // namespace specmoe
