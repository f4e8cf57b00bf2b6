#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/prover.h"

namespace specmoe::testing {

/// A way of speculating that was published or shipped and does not keep the target's distribution. The prover must say
/// so about each: a test bench that misses one of them has no power.
///
/// seen_in  the thread or paper it comes from
/// draw     null: children are drawn as they should be
/// rounds   target passes it takes to go wrong
struct WrongRule {
  std::string name;
  std::string seen_in;
  std::shared_ptr<AcceptancePolicy> policy;
  DraftLaw law = DraftLaw::kIid;
  std::string tree;
  DrawFunction draw;
  int rounds = 1;
};

const std::vector<WrongRule>& wrong_rules();

}  // namespace specmoe::testing
