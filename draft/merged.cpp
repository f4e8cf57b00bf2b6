#include <algorithm>
#include <vector>

#include "core/drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

struct MergedState final : DraftState {
  std::vector<std::unique_ptr<DraftState>> parts;
  std::vector<Proposal> proposals;  // of one part
};

/// Several drafters at once: child i of a node is drawn from the row of drafter i (going round when there are more
/// children), so that siblings are as different as their drafters.
///
/// source  merged trees of SpecInfer, Miao et al. 2023, arXiv:2305.09781; equal siblings stay apart, which the
///         lossless rules need
class Merged final : public Drafter {
 public:
  explicit Merged(Params& params) {
    for (const std::string& spec : params.texts("drafters", "two or more that propose probabilities, each in full")) {
      const auto& part = parts_.emplace_back(drafters().create(spec));
      SPECMOE_CHECK(!part->deterministic(), "merged: ", spec,
                    " proposes tokens, not probabilities to draw from, and cannot be merged");
      rows_ += part->rows_per_node();
    }
  }

  bool deterministic() const override { return false; }
  int rows_per_node() const override { return rows_; }

  std::vector<DraftCheckpoint> checkpoints() const override {
    std::vector<DraftCheckpoint> all;
    for (const auto& part : parts_) {
      const std::vector<DraftCheckpoint> own = part->checkpoints();
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }

  void attach(const DraftContext& context) override {
    SPECMOE_CHECK(parts_.size() >= 2, "merged: needs two drafters or more, got ", parts_.size(),
                  ", as in merged(independent(path=A), independent(path=B))");
    taps_.clear();
    first_tap_.assign(1, 0);
    for (const auto& part : parts_) {
      part->attach(context);
      const std::vector<int> own = part->taps();
      taps_.insert(taps_.end(), own.begin(), own.end());
      first_tap_.push_back(taps_.size());
    }
  }
  std::vector<int> taps() const override { return taps_; }

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) override {
    auto state = std::make_unique<MergedState>();
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      state->parts.push_back(parts_[i]->open(prompt, hidden_of(i, hidden), capacity));
    }
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      asked_.clear();
      for (const ProposeRequest& request : requests) {
        if (i == 0 || !request.argmax_suffices) asked_.push_back(for_part(i, request));
      }
      if (asked_.empty()) return;
      parts_[i]->propose(asked_);
      collect(i, requests);
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) override {
    auto& state = static_cast<MergedState&>(base);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      parts_[i]->commit(*state.parts[i], tree, verdict, hidden_of(i, hidden));
    }
  }

 private:
  /// The boundaries that part i asked for.
  HiddenRows hidden_of(std::size_t i, HiddenRows hidden) const {
    if (taps_.empty()) return {};
    const std::int64_t width = hidden.cols / static_cast<std::int64_t>(taps_.size());
    const auto first = static_cast<std::int64_t>(first_tap_[i]);
    const auto count = static_cast<std::int64_t>(first_tap_[i + 1]) - first;
    return {hidden.data + first * width, hidden.rows, count * width, hidden.stride};
  }

  /// The same question with the part's own memory and an empty place for its answers.
  static ProposeRequest for_part(std::size_t i, const ProposeRequest& request) {
    auto& state = static_cast<MergedState&>(*request.state);
    state.proposals.resize(std::max(state.proposals.size(), request.frontier.size()));
    for (Proposal& proposal : state.proposals) {
      proposal.rows.clear();
      proposal.tokens.clear();
    }
    ProposeRequest own = request;
    own.state = state.parts[i].get();
    own.proposals = &state.proposals;
    return own;
  }

  /// Appends what part i has answered. Where the argmax suffices there is one child a node, the first drafter's.
  static void collect(std::size_t i, std::span<const ProposeRequest> requests) {
    for (const ProposeRequest& request : requests) {
      if (i > 0 && request.argmax_suffices) continue;
      const auto& state = static_cast<const MergedState&>(*request.state);
      for (std::size_t n = 0; n < request.frontier.size(); ++n) {
        const Proposal& from = state.proposals[n];
        Proposal& to = (*request.proposals)[n];
        to.rows.insert(to.rows.end(), from.rows.begin(), from.rows.end());
        to.tokens.insert(to.tokens.end(), from.tokens.begin(), from.tokens.end());
      }
    }
  }

  std::vector<std::shared_ptr<Drafter>> parts_;
  int rows_ = 0;
  std::vector<int> taps_;               // of one part after another
  std::vector<std::size_t> first_tap_;  // [parts + 1]
  std::vector<ProposeRequest> asked_;
};

SPECMOE_REGISTER(drafters(), "merged", Merged, "several drafters, a child of each node from each (SpecInfer)");

}  // namespace
}  // namespace specmoe
