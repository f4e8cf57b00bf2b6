#include "tree/topology.h"

namespace specmoe {
namespace {

/// gamma tokens in a row, one drafter pass each.
class Chain : public TopologyOf<Chain> {
 public:
  explicit Chain(Params& params) : gamma_(params.integer("gamma", 4, "draft tokens per step")) {
    SPECMOE_CHECK(gamma_ >= 1 && gamma_ <= 1024, "chain: gamma must be 1 to 1024, got ", gamma_);
  }
  DraftLaw law() const override { return DraftLaw::kIid; }
  int max_nodes() const override { return gamma_ + 1; }
  int max_depth() const override { return gamma_; }
  bool branches() const override { return false; }
  bool argmax_suffices() const override { return true; }
  std::optional<LevelPlan> level_plan() const override { return LevelPlan{std::vector<int>(gamma_, 1)}; }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    for (NodeId node : view.frontier) {
      if (view.draft.tree.depth(node) < gamma_) growth.push_back({node, 1});
    }
  }

 private:
  int gamma_;
};

SPECMOE_REGISTER(tree_policies(), "chain", Chain, "gamma tokens in a row");

}  // namespace
}  // namespace specmoe
