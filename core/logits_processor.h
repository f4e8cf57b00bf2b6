#pragma once

#include <span>

#include "core/types.h"

namespace specmoe {

/// Changes what a model says after a text before a request samples from it: a grammar forbids tokens (-infinity), a
/// bias lifts them. What it does is part of the request's distribution, so lossless policies keep the changed one.
class LogitsProcessor {
 public:
  virtual ~LogitsProcessor() = default;
  /// Called for the target's rows and for the drafter's, of any node of a tree, in any order, and of any request that
  /// it was given to. The outcome must depend on the arguments alone; of the target's logits it must leave one finite
  /// or more, and none NaN or infinity.
  ///
  /// output  what has been emitted and the node's path. A path is a drafter's guess, so this may be a text that could
  ///         never be written: one that goes on behind its end, or that the processor itself forbids. Its logits may be
  ///         left as they are: no token that is emitted hangs on them
  /// logits  [V] of the token after it, penalties included
  virtual void process(std::span<const TokenId> prompt, std::span<const TokenId> output, std::span<float> logits) = 0;
};

}  // namespace specmoe
