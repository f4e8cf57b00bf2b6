#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/sampling_params.h"
#include "core/tree_policy.h"

namespace specmoe {

/// A sequence that whole steps are to continue.
///
/// sampling     without penalties
/// remaining    tokens that may still be emitted, 1 or more
/// stop_tokens  a step that emits one is the last
struct WholeStepRequest {
  std::span<const TokenId> prompt;
  SamplingParams sampling;
  int remaining = 1;
  std::span<const TokenId> stop_tokens;
};

/// Steps of one sequence that the device of its target runs from end to end: drafting, the tree, the target's pass,
/// judging, both caches. The host only learns what came of each. The same decisions as the engine's own step.
class WholeStep {
 public:
  virtual ~WholeStep() = default;
  /// Whether sequences of up to `text` tokens, prompt and output together, fit.
  virtual bool takes(int text) const = 0;
  /// Begins a sequence; what there was of another is dropped.
  virtual void open(const WholeStepRequest& request) = 0;
  /// One step: what was drafted, what came of it, and the distinct experts of each MoE layer over the rows of the
  /// target's pass. Throws Error as judging does; the sequence is then at its end.
  virtual void run(TokenTree& tree, Verdict& verdict, std::vector<std::int32_t>& unique_experts) = 0;
};

/// What steps are made of; all but the target null for plain decoding. They outlive the steps.
struct WholeStepParts {
  std::shared_ptr<LanguageModel> target;
  const Drafter* drafter = nullptr;
  const TreePolicy* tree = nullptr;
  const AcceptancePolicy* acceptance = nullptr;
  bool lossless = true;
  bool loop = false;    // run step after step without the host, as far as the results of several find room
  bool choose = false;  // choose the size of the target's pass on the device, by the tree that it finds
};

/// Whole steps, or why the host has to lead: one line, for people. Both empty on a CPU.
struct WholeStepOffer {
  std::unique_ptr<WholeStep> step;
  std::string why_not;
};

WholeStepOffer offer_whole_step(const WholeStepParts& parts);

/// The CUDA part of the library, where it is built, adds its maker when the program starts.
using WholeStepMaker = WholeStepOffer (*)(const WholeStepParts& parts);
struct WholeStepRegistration {
  explicit WholeStepRegistration(WholeStepMaker maker);
};

}  // namespace specmoe
