#include "tree/scored_topology.h"

namespace specmoe {
namespace {

/// Level by level, keeps the extensions whose probability is within a factor `mu` of the level's best, until the budget
/// is spent: sure texts grow deep, unsure ones wide.
///
/// source  TALON (gated tree growth): first level by count, deeper ones by the gate
class Gated : public ScoredTopology<Gated> {
 public:
  explicit Gated(Params& params)
      : ScoredTopology(params, 10, "children of the root, and most of any node"),
        mu_(params.real("mu", 0.03, "least share of the level's best probability")) {
    SPECMOE_CHECK(mu_ > 0.0 && mu_ <= 1.0, "gated: mu must be above 0 and at most 1, got ", mu_);
  }
  int max_grown_nodes() const override { return 1 + width_ * (nodes_ + 1); }

  template <class Real>
  void choose_frontier(const GrowthView<Real>& view, std::span<const NodeId> added,
                       std::vector<NodeId>& frontier) const {
    if (added.empty()) return;
    Draft<Real>& draft = view.draft;
    scored::score_added(view, added);
    const NodeId best = *std::min_element(added.begin(), added.end(), scored::better(draft));
    const bool first_level = draft.tree.depth(best) == 1;
    const double gate = draft.notes[best].score + std::log(mu_);
    for (NodeId node : added) {
      if (first_level || draft.notes[node].score >= gate) frontier.push_back(node);
    }
    const int used = static_cast<int>(std::count_if(draft.notes.begin(), draft.notes.end(), is_kept));
    scored::keep_best(draft, frontier, static_cast<std::size_t>(nodes_ - used));
    for (NodeId node : frontier) draft.notes[node].flag |= scored::kKept;
    if (used + static_cast<int>(frontier.size()) >= nodes_ || draft.tree.depth(best) >= depth_) frontier.clear();
  }
  template <class Real>
  void keep(const GrowthView<Real>& view, std::vector<NodeId>& kept) const {
    for (NodeId n = 0; n < view.draft.tree.size(); ++n) {
      if (n == TokenTree::kRoot || is_kept(view.draft.notes[n])) kept.push_back(n);
    }
  }

 private:
  static bool is_kept(const NodeNote& note) { return (note.flag & scored::kKept) != 0; }

  double mu_;
};

SPECMOE_REGISTER(tree_policies(), "gated", Gated, "keeps what is within a factor of the level's best (TALON)");

}  // namespace
}  // namespace specmoe
