#include "tree/scored_topology.h"

namespace specmoe {
namespace {

/// Expands the most confident nodes of each level, then keeps the most confident of all.
///
/// source  EAGLE-2, Li et al. 2024, arXiv:2406.16858
class Confidence : public ScoredTopology<Confidence> {
 public:
  explicit Confidence(Params& params) : ScoredTopology(params, 5, "nodes expanded per level, and children of each") {}
  std::optional<LevelPlan> level_plan() const override {
    return LevelPlan{std::vector<int>(depth_, width_), width_, nodes_};
  }

  template <class Real>
  void choose_frontier(const GrowthView<Real>& view, std::span<const NodeId> added,
                       std::vector<NodeId>& frontier) const {
    if (added.empty()) return;
    scored::score_added(view, added);
    if (view.draft.tree.depth(added.front()) >= depth_) return;
    frontier.assign(added.begin(), added.end());
    scored::keep_best(view.draft, frontier, static_cast<std::size_t>(width_));
  }
};

SPECMOE_REGISTER(tree_policies(), "confidence", Confidence, "expands and keeps the most confident nodes (EAGLE-2)");

}  // namespace
}  // namespace specmoe
