#include "core/grow.h"

#include <algorithm>

#include "core/draw.h"

namespace specmoe {
namespace {

using PerSequence = GrowWorkspace::PerSequence;

GrowthView<float> view_of(const GrowRequest& request, const PerSequence& work) {
  return {*request.draft, work.frontier, work.frontier_rows};
}

void start(const GrowRequest& request, PerSequence& work) {
  work.frontier.assign(1, TokenTree::kRoot);
  work.active = request.max_depth > 0;
}

/// Empty proposals for the frontier. The vector never shrinks, so that its elements keep their capacity.
void clear_proposals(PerSequence& work) {
  if (work.proposals.size() < work.frontier.size()) work.proposals.resize(work.frontier.size());
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

/// One level: the topology answers for the frontier, the children are drawn, the next frontier is chosen.
void advance(const GrowRequest& request, const TreePolicy& tree, PerSequence& work) {
  work.frontier_rows.clear();
  for (std::size_t i = 0; i < work.frontier.size(); ++i) {
    const Proposal& proposal = work.proposals[i];
    work.frontier_rows.push_back(proposal.rows.empty() ? -1 : proposal.rows[0]);
  }
  work.growth.clear();
  tree.expand(view_of(request, work), work.growth);
  work.added.clear();
  for (const Growth& growth : work.growth) {
    const auto found = std::find(work.frontier.begin(), work.frontier.end(), growth.parent);
    SPECMOE_CHECK(found != work.frontier.end(), "the topology wants children below node ", growth.parent,
                  ", which is not in the frontier it was shown");
    draw_at(request, work.proposals[found - work.frontier.begin()], growth, work.added);
  }
  SPECMOE_CHECK(request.draft->tree.size() <= tree.max_grown_nodes(), "the topology grew ", request.draft->tree.size(),
                " nodes, its max_grown_nodes is ", tree.max_grown_nodes());
  std::vector<NodeId>& next = work.kept;
  next.clear();
  tree.next_frontier(view_of(request, work), work.added, next);
  std::erase_if(next, [&](NodeId node) { return request.draft->tree.depth(node) >= request.max_depth; });
  work.frontier.swap(next);
  work.active = !work.frontier.empty();
}

void prune(const GrowRequest& request, const TreePolicy& tree, PerSequence& work) {
  Draft<float>& draft = *request.draft;
  work.kept.clear();
  if (draft.law == DraftLaw::kDeterministic && draft.tree.size() > 1) tree.prune(view_of(request, work), work.kept);
  if (!work.kept.empty()) {
    draft.tree = draft.tree.subset(work.kept);
    for (std::size_t i = 0; i < work.kept.size(); ++i) draft.row_of[i] = draft.row_of[work.kept[i]];
    draft.row_of.resize(work.kept.size());
  }
  SPECMOE_CHECK(draft.tree.size() <= tree.max_nodes(), "the topology left ", draft.tree.size(),
                " nodes, its max_nodes is ", tree.max_nodes());
}

}  // namespace

DraftLaw effective_law(const Drafter& drafter, const TreePolicy& tree, const SamplingParams& sampling) {
  if (sampling.greedy() || drafter.deterministic()) return DraftLaw::kDeterministic;
  return drafter.rows_per_node() > 1 ? DraftLaw::kMultiDrafter : tree.law();
}

void grow(std::span<GrowRequest> requests, Drafter& drafter, const TreePolicy& tree, GrowWorkspace& workspace) {
  if (workspace.sequences.size() < requests.size()) workspace.sequences.resize(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) start(requests[i], workspace.sequences[i]);
  while (true) {
    workspace.requests.clear();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      PerSequence& work = workspace.sequences[i];
      if (!work.active) continue;
      clear_proposals(work);
      const GrowRequest& request = requests[i];
      workspace.requests.push_back({request.state, request.draft, work.frontier, request.sampling, request.uniforms,
                                    request.sampling->greedy() && tree.argmax_suffices(), &work.proposals});
    }
    if (workspace.requests.empty()) break;
    drafter.propose(workspace.requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (workspace.sequences[i].active) advance(requests[i], tree, workspace.sequences[i]);
    }
  }
  for (std::size_t i = 0; i < requests.size(); ++i) prune(requests[i], tree, workspace.sequences[i]);
}

}  // namespace specmoe
