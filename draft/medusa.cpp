#include "core/drafter.h"
#include "draft/depth_proposals.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// row    [D] the target's hidden row at the token before the root; empty where the root is the text's first token
/// known  what the heads have proposed in this step
struct MedusaState final : DraftState {
  std::vector<float> row;
  DepthProposals known;
};

/// Heads trained for a target, one for each of the next tokens but one. All read the target's last hidden row, so head
/// i proposes after every node of depth i alike, whatever was drafted before it (but for what a request changes by the
/// node's own text), and deeper than the heads nothing is proposed.
///
/// source  Medusa, Cai et al. 2024, arXiv:2401.10774; its tree is static_ranks(preset=medusa), its acceptance typical;
///         differs: a sampled draft is drawn from the heads' distributions, where the topology draws
class Medusa final : public Drafter {
 public:
  explicit Medusa(Params& params) : path_(params.required_text("path", "folder of the heads")) {}

  bool deterministic() const override { return false; }
  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_, DraftCheckpoint::Kind::kMedusaHeads}}; }

  void attach(const DraftContext& context) override {
    try {
      heads_ = context.target->medusa_heads(path_);
    } catch (const Error& error) {
      fail("medusa: ", error.what());
    }
    tap_ = context.target->info().layers + 1;
  }
  std::vector<int> taps() const override { return {tap_}; }

  std::unique_ptr<DraftState> open(std::span<const TokenId> /*prompt*/, HiddenRows hidden, int /*capacity*/) override {
    auto state = std::make_unique<MedusaState>();
    if (hidden.rows > 0) take_row(*state, hidden, hidden.rows - 1);
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      if (request.frontier[0] == TokenTree::kRoot) state_of(request).known.begin(heads_->count());
    }
    for (int head = 0; head < heads_->count(); ++head) ask(head, requests);
  }

  void commit(DraftState& state, const TokenTree&, const Verdict& verdict, HiddenRows hidden) override {
    const NodeId last = verdict.accepted.empty() ? TokenTree::kRoot : verdict.accepted.back();
    take_row(static_cast<MedusaState&>(state), hidden, last);
  }

 private:
  static MedusaState& state_of(const ProposeRequest& request) { return static_cast<MedusaState&>(*request.state); }

  static void take_row(MedusaState& state, HiddenRows hidden, std::int64_t row) {
    state.row.assign(hidden.row(row), hidden.row(row) + hidden.cols);
  }

  static bool is_at(const ProposeRequest& request, std::size_t i, int depth) {
    return request.draft->tree.depth(request.frontier[i]) == depth;
  }

  /// Whether a sequence has come to a head's depth, and not all its nodes there can be answered without running it.
  static bool needs(int head, const ProposeRequest& request) {
    const MedusaState& state = state_of(request);
    bool unknown = false;
    for (std::size_t i = 0; i < request.frontier.size(); ++i) {
      if (is_at(request, i, head)) unknown |= !state.known.repeat(request, i);
    }
    return unknown && !state.row.empty();
  }

  /// Proposes after all nodes of a head's depth.
  void ask(int head, std::span<const ProposeRequest> requests) {
    asked_.clear();
    rows_.clear();
    for (const ProposeRequest& request : requests) {
      if (!needs(head, request)) continue;
      asked_.push_back(&request);
      const std::vector<float>& row = state_of(request).row;
      rows_.insert(rows_.end(), row.begin(), row.end());
    }
    if (asked_.empty()) return;
    const auto count = static_cast<std::int64_t>(asked_.size());
    const auto width = static_cast<std::int64_t>(rows_.size()) / count;
    heads_->forward(head, kernels::contiguous<const float>(rows_.data(), count, width), result_);
    for (std::size_t a = 0; a < asked_.size(); ++a) {
      const ProposeRequest& request = *asked_[a];
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        if (!is_at(request, i, head)) continue;
        state_of(request).known.propose(result_, static_cast<int>(a), request, i, scratch_);
      }
    }
  }

  const std::string path_;
  std::shared_ptr<MedusaHeads> heads_;
  int tap_ = 0;
  ForwardResult result_;
  std::vector<const ProposeRequest*> asked_;
  std::vector<float> rows_;  // [asked, D]
  std::vector<std::int32_t> scratch_;
};

SPECMOE_REGISTER(drafters(), "medusa", Medusa, "heads on the target's last hidden row, one per depth (Medusa)");

}  // namespace
}  // namespace specmoe
