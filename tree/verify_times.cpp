#include "tree/verify_times.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "kernels/check.h"

namespace specmoe {

VerifyTimes::VerifyTimes(const std::string& topology, const std::string& text) {
  int before = 0;
  for (const char *at = text.data(), *end = at + text.size();; ++at) {
    auto& [nodes, time] = measured_.emplace_back();
    const auto count = std::from_chars(at, end, nodes);
    const bool colon = count.ec == std::errc() && count.ptr != end && *count.ptr == ':';
    const auto value = std::from_chars(colon ? count.ptr + 1 : end, end, time);
    SPECMOE_CHECK(value.ec == std::errc() && (value.ptr == end || *value.ptr == '/'), topology,
                  ": verify_times must be nodes:time pairs such as 1:10/16:12, got '", text, "'");
    SPECMOE_CHECK(nodes > before, topology, ": verify_times must ascend in nodes from 1 or more, got ", nodes);
    SPECMOE_CHECK(std::isfinite(time) && time > 0.0, topology, ": verify_times must be above 0, got ", time, " for ",
                  nodes, " nodes");
    before = nodes;
    at = value.ptr;
    if (at == end) return;
  }
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
