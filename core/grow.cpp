#include "core/grow.h"

#include <algorithm>

#include "core/draw.h"

namespace specmoe {
namespace {

using PerSequence = GrowWorkspace::PerSequence;

GrowthView<float> view_of(const GrowRequest& request, const PerSequence& work) {
  return {*request.draft, work.growth.frontier, work.growth.frontier_rows};
}

void start(const GrowRequest& request, PerSequence& work) {
  work.growth.frontier.clear();
  if (request.max_depth > 0) work.growth.frontier.push_back(TokenTree::kRoot);
}

/// Empty proposals for the frontier. The vector never shrinks, so that its elements keep their capacity.
void clear_proposals(PerSequence& work) {
  const std::size_t count = work.growth.frontier.size();
  if (work.proposals.size() < count) work.proposals.resize(count);
  for (Proposal& proposal : work.proposals) {
    proposal.rows.clear();
    proposal.tokens.clear();
  }
}

/// The children of one node, drawn from what the drafter proposed there.
void draw_at(const GrowRequest& request, const Proposal& proposal, Growth growth, std::vector<NodeId>& added) {
  if (proposal.tokens.empty()) {
    if (!proposal.rows.empty()) {
      draw_children(*request.draft, growth.parent, growth.children, proposal.rows, *request.uniforms, added);
    }
    return;
  }
  const int count = std::min<int>(growth.children, static_cast<int>(proposal.tokens.size()));
  for (int i = 0; i < count; ++i) added.push_back(request.draft->add(growth.parent, proposal.tokens[i], -1));
}

void advance(const GrowRequest& request, const TreePolicy& tree, PerSequence& work) {
  GrowthState& state = work.growth;
  state.frontier_rows.clear();
  for (std::size_t i = 0; i < state.frontier.size(); ++i) {
    const Proposal& proposal = work.proposals[i];
    state.frontier_rows.push_back(proposal.rows.empty() ? -1 : proposal.rows[0]);
  }
  grow_level(
      *request.draft, tree, request.max_depth, state, [&] { return view_of(request, work); },
      [&](std::size_t i, Growth growth, std::vector<NodeId>& added) {
        draw_at(request, work.proposals[i], growth, added);
      });
}

}  // namespace

DraftLaw effective_law(const Drafter& drafter, const TreePolicy& tree, const SamplingParams& sampling) {
  if (sampling.greedy() || drafter.deterministic() || tree.law() == DraftLaw::kDeterministic) {
    return DraftLaw::kDeterministic;
  }
  return drafter.rows_per_node() > 1 ? DraftLaw::kMultiDrafter : tree.law();
}

void grow(std::span<GrowRequest> requests, Drafter& drafter, const TreePolicy& tree, GrowWorkspace& workspace) {
  if (workspace.sequences.size() < requests.size()) workspace.sequences.resize(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) start(requests[i], workspace.sequences[i]);
  while (true) {
    workspace.requests.clear();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      PerSequence& work = workspace.sequences[i];
      if (work.growth.frontier.empty()) continue;
      clear_proposals(work);
      const GrowRequest& request = requests[i];
      const bool argmax_suffices = request.sampling->greedy() && !request.changes->any() && tree.argmax_suffices();
      workspace.requests.push_back({request.state, request.draft, work.growth.frontier, request.sampling,
                                    request.changes, request.uniforms, argmax_suffices, &work.proposals});
    }
    if (workspace.requests.empty()) break;
    drafter.propose(workspace.requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      PerSequence& work = workspace.sequences[i];
      if (!work.growth.frontier.empty()) advance(requests[i], tree, work);
    }
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    PerSequence& work = workspace.sequences[i];
    prune_grown(*requests[i].draft, tree, work.growth, [&] { return view_of(requests[i], work); });
  }
}

}  // namespace specmoe
