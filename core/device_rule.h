#pragma once

#include <cstdint>

namespace specmoe {

/// The acceptance rules that devices have as well (verify/verify_tree.h).
enum class DeviceRule : std::uint8_t { kGreedy, kNaive, kToken, kBlock, kMultiStep, kGreedyOt };

/// What a policy does, for a device.
///
/// without_replacement  kMultiStep: how it takes siblings to have been drawn
struct DeviceJudge {
  DeviceRule rule = DeviceRule::kGreedy;
  bool without_replacement = false;
};

}  // namespace specmoe
