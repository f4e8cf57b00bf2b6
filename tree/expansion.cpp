#include "tree/topology.h"

namespace specmoe {
namespace {

constexpr int kMostNodes = 4096;

/// Every node of depth i - 1 gets k_i children.
///
/// source  the expansion configuration <k1, .., km> of Miao et al. 2024 (SpecInfer), arXiv:2305.09781
class Expansion : public TopologyOf<Expansion> {
 public:
  explicit Expansion(Params& params)
      : widths_(params.integers("widths", {2, 2, 1}, "children per node at depth 1, 2, ..")),
        law_(law_from_name(params.text("law", law_name(DraftLaw::kWithoutReplacement), "how siblings are drawn"))) {
    SPECMOE_CHECK(!widths_.empty(), "expansion: expected at least one width, such as expansion(2,2,1)");
    std::int64_t level = 1;
    std::int64_t nodes = 1;
    for (std::int64_t width : widths_) {
      SPECMOE_CHECK(width >= 1 && width <= kMostNodes, "expansion: widths must be 1 to ", kMostNodes, ", got ", width);
      level *= width;
      nodes += level;
      SPECMOE_CHECK(nodes <= kMostNodes, "expansion: expected at most ", kMostNodes, " nodes, got ", nodes,
                    " or more; use smaller widths");
    }
    max_nodes_ = static_cast<int>(nodes);
  }
  DraftLaw law() const override { return law_; }
  int max_nodes() const override { return max_nodes_; }
  int max_depth() const override { return static_cast<int>(widths_.size()); }
  bool branches() const override { return max_nodes_ > max_depth() + 1; }
  std::optional<LevelPlan> level_plan() const override {
    return LevelPlan{std::vector<int>(widths_.begin(), widths_.end())};
  }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    for (NodeId node : view.frontier) {
      const int depth = view.draft.tree.depth(node);
      if (depth < max_depth()) growth.push_back({node, static_cast<int>(widths_[depth])});
    }
  }

 private:
  std::vector<std::int64_t> widths_;
  DraftLaw law_;
  int max_nodes_ = 1;
};

SPECMOE_REGISTER(tree_policies(), "expansion", Expansion, "k_i children per node at depth i (SpecInfer)");

}  // namespace
}  // namespace specmoe
