#pragma once

#include <vector>

#include "draft/model_drafter.h"

namespace specmoe {

/// Proposals of a drafter that looks at a node's depth alone: one row for all nodes of a depth, or one for each node
/// where a request changes logits by the node's own text.
class DepthProposals {
 public:
  /// A step begins, in which nodes of depth 0 to `depths` - 1 get proposals.
  void begin(int depths) {
    at_depth_.resize(static_cast<std::size_t>(depths));
    for (Proposal& proposal : at_depth_) {
      proposal.rows.clear();
      proposal.tokens.clear();
    }
  }
  int depths() const { return static_cast<int>(at_depth_.size()); }

  /// Proposes after frontier node i what was proposed before at its depth. False where that is not to be had.
  bool repeat(const ProposeRequest& request, std::size_t i) const {
    const Proposal& known = at_depth_[depth(request, i)];
    if (request.changes->any() || (known.rows.empty() && known.tokens.empty())) return false;
    (*request.proposals)[i] = known;
    return true;
  }
  /// The same, or else what row `row` of a pass says of the depth.
  void propose(const ForwardResult& result, int row, const ProposeRequest& request, std::size_t i,
               std::vector<std::int32_t>& scratch) {
    if (repeat(request, i)) return;
    propose_row(result, row, request.frontier[i], request, (*request.proposals)[i], scratch);
    at_depth_[depth(request, i)] = (*request.proposals)[i];
  }

 private:
  static std::size_t depth(const ProposeRequest& request, std::size_t i) {
    return static_cast<std::size_t>(request.draft->tree.depth(request.frontier[i]));
  }

  std::vector<Proposal> at_depth_;
};

}  // namespace specmoe
