#include <cmath>

#include "core/row_stats.h"
#include "tree/static_shape.h"

namespace specmoe {
namespace {

/// A chain that stops before a token it is unsure about, and that drafts nothing for a while when little is accepted.
///
/// Whether a token is drafted depends on the row it would be drawn from, never on the token: stopping is harmless for
/// every lossless policy.
///
///   rule = confidence  stops when max q < threshold (llama.cpp's p_min, Kangaroo)
///   rule = entropy     stops when 1 - sqrt(0.2 H(q)) < threshold (AdaEDL, Agrawal et al. 2024, arXiv:2410.18351)
///   rule = survival    stops when the product of max q along the chain < threshold (SpecDec++, Huang et al. 2024,
///                      arXiv:2405.19715, with the drafter's confidence in place of a trained head)
///
/// learn > 0 moves the threshold after each step: down when all was accepted, up when nothing was (AdaEDL).
/// off_below > 0 drafts nothing for `pause` steps once the running share of accepted tokens falls below it.
class AdaptiveChain : public TopologyOf<AdaptiveChain> {
 public:
  explicit AdaptiveChain(Params& params)
      : gamma_(count_param(params, "gamma", 8, "most draft tokens per step", 1024)),
        rule_(params.text("rule", "confidence", "confidence, entropy or survival")),
        threshold_(params.real("threshold", 0.4, "stop below it")),
        learn_(params.real("learn", 0.0, "how far the threshold moves after a step")),
        off_below_(params.real("off_below", 0.0, "accepted share below which drafting pauses")),
        pause_(count_param(params, "pause", 16, "steps without a draft", 1 << 20)) {
    SPECMOE_CHECK(rule_ == "confidence" || rule_ == "entropy" || rule_ == "survival",
                  "adaptive_chain: rule must be confidence, entropy or survival, got '", rule_, "'");
    SPECMOE_CHECK(threshold_ >= 0.0 && threshold_ <= 1.0, "adaptive_chain: threshold must lie between 0 and 1, got ",
                  threshold_);
    SPECMOE_CHECK(learn_ >= 0.0 && learn_ < 1.0, "adaptive_chain: learn must be at least 0 and below 1, got ", learn_);
    SPECMOE_CHECK(off_below_ >= 0.0 && off_below_ < 1.0,
                  "adaptive_chain: off_below must be at least 0 and below 1, got ", off_below_);
  }
  DraftLaw law() const override { return DraftLaw::kIid; }
  int max_nodes() const override { return gamma_ + 1; }
  int max_depth() const override { return gamma_; }
  bool branches() const override { return false; }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    Draft<Real>& draft = view.draft;
    if (draft.memory.empty()) draft.memory = {threshold_, 1.0, 0.0};
    const NodeId node = view.frontier.front();
    if (draft.tree.depth(node) >= gamma_ || draft.memory[kPaused] > 0.0) return;
    if (view.frontier_rows.front() >= 0 && unsure(view, node)) return;
    growth.push_back({node, 1});
  }

  template <class Real>
  void learn(Draft<Real>& draft, int accepted) const {
    if (draft.memory.empty()) return;
    const int drafted = draft.tree.drafted();
    if (draft.memory[kPaused] > 0.0) {
      draft.memory[kPaused] -= 1.0;
      return;
    }
    if (drafted == 0) return;
    double& threshold = draft.memory[kThreshold];
    if (accepted == drafted) threshold -= learn_ * threshold;
    if (accepted == 0) threshold += learn_ * (1.0 - threshold);
    double& share = draft.memory[kShare];
    share += kWeight * (static_cast<double>(accepted) / drafted - share);
    if (share < off_below_) {
      draft.memory[kPaused] = pause_;
      share = 1.0;
    }
  }

 private:
  enum Memory { kThreshold, kShare, kPaused };
  static constexpr double kWeight = 0.1;  // of the newest step in the running share

  /// Whether the chain stops at `node`, by the row after it. A node's score is the survival of the chain up to its
  /// child.
  template <class Real>
  bool unsure(const GrowthView<Real>& view, NodeId node) const {
    const ProbRow<Real> row = view.draft.rows.row(view.frontier_rows.front());
    const double threshold = view.draft.memory[kThreshold];
    if (rule_ == "entropy") return 1.0 - std::sqrt(0.2 * entropy(row)) < threshold;
    const double confidence = peak(row);
    if (rule_ == "confidence") return confidence < threshold;
    const NodeId above = view.draft.tree.parent(node);
    const double survival = confidence * (above == TokenTree::kNone ? 1.0 : view.draft.notes[above].score);
    view.draft.notes[node].score = survival;
    return survival < threshold;
  }

  int gamma_;
  std::string rule_;
  double threshold_;
  double learn_;
  double off_below_;
  int pause_;
};

SPECMOE_REGISTER(tree_policies(), "adaptive_chain", AdaptiveChain, "a chain that stops where the draft is unsure");

}  // namespace
}  // namespace specmoe
