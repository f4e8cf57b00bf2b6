#pragma once

#include <string>
#include <utility>
#include <vector>

namespace specmoe {

/// Measured times of a target pass by the nodes that it scores, root included, in any unit.
class VerifyTimes {
 public:
  /// nodes:time pairs such as "1:10/16:12/64:20". Throws Error naming `topology` when they are none, do not ascend in
  /// nodes, or a time is not above 0.
  VerifyTimes(const std::string& topology, const std::string& text);

  /// Between two measured sizes on the line through them, below the first as long as that, infinite beyond the last.
  double at(int nodes) const;

 private:
  std::vector<std::pair<int, double>> measured_;  // nodes, time
};

}  // namespace specmoe
