#include "tree/scored_topology.h"
#include "tree/verify_times.h"

namespace specmoe {
namespace {

/// The tree that emits most tokens for its time: each further row of a target pass wakes experts, and a node is kept
/// only if it pays for those.
///
/// Utility is (1 + the sum of the drafter's path probabilities) / (drafter passes + target pass). Levels are added
/// where a child that is sure to be accepted would raise it; the final tree is the best nodes that make it largest, or
/// none.
///
/// source   EVICT, arXiv:2605.00342
/// differs  EVICT drafts a tree of a fixed size before it cuts it; here drafting stops as well
class ExpertAware : public ScoredTopology<ExpertAware> {
 public:
  explicit ExpertAware(Params& params)
      : ScoredTopology(params, 8, "nodes expanded per level, and children of each"),
        draft_time_(params.real("draft_time", 0.1, "time of one drafter pass, in the unit of verify_times")),
        verify_times_(params.name(), times_or_experts(params)) {
    SPECMOE_CHECK(draft_time_ >= 0.0, "expert_aware: draft_time must be 0 or more, got ", draft_time_);
  }

  template <class Real>
  void choose_frontier(const GrowthView<Real>& view, std::span<const NodeId> added,
                       std::vector<NodeId>& frontier) const {
    if (added.empty()) return;
    scored::score_added(view, added);
    const int depth = view.draft.tree.depth(added.front());
    if (depth >= depth_) return;
    const Cut best = best_cut(view.draft, frontier);
    frontier.assign(added.begin(), added.end());
    std::erase_if(frontier, [&](NodeId node) {
      const double sure = best.tokens + std::exp(view.draft.notes[node].score);
      return utility(sure, best.nodes + 1, depth + 1) <= best.utility;
    });
    scored::keep_best(view.draft, frontier, static_cast<std::size_t>(width_));
  }

  template <class Real>
  void keep(const GrowthView<Real>& view, std::vector<NodeId>& kept) const {
    kept.resize(static_cast<std::size_t>(best_cut(view.draft, kept).nodes));
    kept.push_back(TokenTree::kRoot);
    std::sort(kept.begin(), kept.end());
  }

 private:
  /// The best `nodes` drafted nodes of a tree.
  struct Cut {
    int nodes = 0;
    double tokens = 1.0;  // expected, the extra one included
    double utility = 0.0;
  };

  /// What is measured, or else the distinct experts of Mixtral, two of eight a token, over those of one token.
  static std::string times_or_experts(Params& params) {
    const std::string times = params.text("verify_times", "",
                                          "measured nodes:time pairs such as 1:10/16:12/64:20, root counted; "
                                          "none: as the experts of Mixtral");
    return times.empty() ? "1:1/2:1.75/3:2.31/4:2.73/6:3.29/8:3.6/16:3.96/33:4" : times;
  }
  double utility(double tokens, int nodes, int passes) const {
    return tokens / (passes * draft_time_ + verify_times_.at(nodes + 1));
  }

  /// The cut of largest utility; `best_first` becomes the nodes that may be kept, the best first.
  template <class Real>
  Cut best_cut(const Draft<Real>& draft, std::vector<NodeId>& best_first) const {
    best_first.clear();
    for (NodeId n = 1; n < draft.tree.size(); ++n) best_first.push_back(n);
    scored::select_best(draft, best_first, static_cast<std::size_t>(nodes_));
    std::sort(best_first.begin(), best_first.end(), scored::better(draft));
    const int passes = draft.tree.max_depth();
    Cut cut = {0, 1.0, utility(1.0, 0, passes)};
    Cut best = cut;
    for (const NodeId node : best_first) {
      cut.tokens += std::exp(draft.notes[node].score);
      cut.utility = utility(cut.tokens, ++cut.nodes, passes);
      if (cut.utility > best.utility) best = cut;
    }
    return best;
  }

  double draft_time_;
  VerifyTimes verify_times_;
};

SPECMOE_REGISTER(tree_policies(), "expert_aware", ExpertAware,
                 "keeps the nodes that pay for the experts they wake (EVICT)");

}  // namespace
}  // namespace specmoe
