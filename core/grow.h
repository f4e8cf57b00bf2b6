#pragma once

#include <span>
#include <vector>

#include "core/draft.h"
#include "core/drafter.h"
#include "core/grow_level.h"
#include "core/tree_policy.h"
#include "core/uniforms.h"

namespace specmoe {

/// The law that drafts will have: deterministic when the drafter proposes tokens, the request is greedy or the topology
/// chooses, otherwise the topology's own (several drafters make it kMultiDrafter).
DraftLaw effective_law(const Drafter& drafter, const TreePolicy& tree, const SamplingParams& sampling);

/// One sequence whose tree is being grown.
struct GrowRequest {
  DraftState* state = nullptr;
  Draft<float>* draft = nullptr;  // reset to the root; its law says how children are drawn
  const SamplingParams* sampling = nullptr;
  LogitChanges* changes = nullptr;
  UniformSource<double>* uniforms = nullptr;
  int max_depth = 0;  // no node deeper than this (text that may still be emitted); at least 0
};

/// Scratch of grow(), reused from step to step.
struct GrowWorkspace {
  struct PerSequence {
    GrowthState growth;
    std::vector<Proposal> proposals;
  };
  std::vector<PerSequence> sequences;
  std::vector<ProposeRequest> requests;
};

/// Grows the trees of all sequences level by level: the drafter is asked once per level about all frontiers, the
/// topology says how many children each node gets, and only then are they drawn.
void grow(std::span<GrowRequest> requests, Drafter& drafter, const TreePolicy& tree, GrowWorkspace& workspace);

}  // namespace specmoe
