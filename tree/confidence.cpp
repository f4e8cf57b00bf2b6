#include "tree/scored_topology.h"

namespace specmoe {
namespace {

/// Expands the most confident nodes of each level, then keeps the most confident of all.
///
/// source  EAGLE-2, Li et al. 2024, arXiv:2406.16858
class Confidence : public TopologyOf<Confidence> {
 public:
  explicit Confidence(Params& params)
      : nodes_(count_param(params, "nodes", 32, "drafted nodes that are kept")),
        depth_(count_param(params, "depth", 5, "most tokens on a path", 64)),
        width_(count_param(params, "width", 8, "nodes expanded per level, and children of each", 64)) {}
  DraftLaw law() const override { return DraftLaw::kDeterministic; }
  int max_nodes() const override { return std::min(nodes_ + 1, max_grown_nodes()); }
  int max_grown_nodes() const override { return 1 + width_ + (depth_ - 1) * width_ * width_; }
  int max_depth() const override { return depth_; }
  bool branches() const override { return width_ > 1; }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    scored::grow_all(view, width_, growth);
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
  template <class Real>
  void keep(const GrowthView<Real>& view, std::vector<NodeId>& kept) const {
    scored::best_tree(view.draft, nodes_, kept);
  }

 private:
  int nodes_;
  int depth_;
  int width_;
};

SPECMOE_REGISTER(tree_policies(), "confidence", Confidence, "expands and keeps the most confident nodes (EAGLE-2)");

}  // namespace
}  // namespace specmoe
