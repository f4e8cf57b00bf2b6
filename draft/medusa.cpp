#include <algorithm>

#include "core/drafter.h"
#include "draft/model_drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// row       [D] the target's hidden row at the token before the root; empty where the root is the text's first token
/// at_depth  [heads] what this step proposes after nodes of a depth; empty: not asked about yet, or every node is
///           asked about by itself
struct MedusaState final : DraftState {
  std::vector<float> row;
  std::vector<Proposal> at_depth;
};

bool is_empty(const Proposal& proposal) { return proposal.rows.empty() && proposal.tokens.empty(); }

void clear(Proposal& proposal) {
  proposal.rows.clear();
  proposal.tokens.clear();
}

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
    state->at_depth.resize(static_cast<std::size_t>(heads_->count()));
    if (hidden.rows > 0) take_row(*state, hidden, hidden.rows - 1);
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      if (request.frontier[0] != TokenTree::kRoot) continue;
      std::ranges::for_each(state_of(request).at_depth, clear);
    }
    for (int head = 0; head < heads_->count(); ++head) ask(head, requests);
    for (const ProposeRequest& request : requests) {
      if (request.changes->any()) continue;
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        const int depth = depth_at(request, i);
        if (depth < heads_->count()) (*request.proposals)[i] = state_of(request).at_depth[std::size_t(depth)];
      }
    }
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

  static int depth_at(const ProposeRequest& request, std::size_t i) {
    return request.draft->tree.depth(request.frontier[i]);
  }

  /// Asks a head for all sequences that have come to its depth and not asked it in this step.
  void ask(int head, std::span<const ProposeRequest> requests) {
    asked_.clear();
    rows_.clear();
    for (const ProposeRequest& request : requests) {
      const MedusaState& state = state_of(request);
      if (state.row.empty() || !is_empty(state.at_depth[std::size_t(head)])) continue;
      const auto is_there = [&](NodeId node) { return request.draft->tree.depth(node) == head; };
      if (std::ranges::none_of(request.frontier, is_there)) continue;
      asked_.push_back(&request);
      rows_.insert(rows_.end(), state.row.begin(), state.row.end());
    }
    if (asked_.empty()) return;
    const auto count = static_cast<std::int64_t>(asked_.size());
    const auto width = static_cast<std::int64_t>(rows_.size()) / count;
    heads_->forward(head, kernels::contiguous<const float>(rows_.data(), count, width), result_);
    for (std::size_t i = 0; i < asked_.size(); ++i) propose(*asked_[i], head, static_cast<int>(i));
  }

  /// What row `row` of the head says: once for all nodes of its depth, or for each by the node's text.
  void propose(const ProposeRequest& request, int head, int row) {
    for (std::size_t i = 0; i < request.frontier.size(); ++i) {
      if (depth_at(request, i) != head) continue;
      const bool apart = request.changes->any();
      Proposal& proposal = apart ? (*request.proposals)[i] : state_of(request).at_depth[std::size_t(head)];
      propose_row(result_, row, request.frontier[i], request, proposal, scratch_);
      if (!apart) return;
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
