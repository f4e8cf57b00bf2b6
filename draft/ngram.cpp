#include <algorithm>
#include <vector>

#include "core/drafter.h"

namespace specmoe {
namespace {

struct NgramState final : DraftState {
  std::vector<TokenId> text;
  std::vector<TokenId> suffix;  // last tokens of text plus path, at most max_n
};

/// Prompt lookup: what followed the last tokens when they occurred before (Saxena 2023; Lookahead's n-gram pool).
///
/// At a node, the longest n in max_n..min_n whose last n tokens occur earlier in prompt and output decides; what
/// followed is proposed, most recent occurrence first, then that of shorter n, each token once, `choices` at most.
class Ngram final : public Drafter {
 public:
  explicit Ngram(Params& params)
      : max_n_(params.integer("max_n", 4, "longest match, tokens")),
        min_n_(params.integer("min_n", 1, "shortest match, tokens")),
        choices_(params.integer("choices", 4, "most tokens proposed at one node")) {
    SPECMOE_CHECK(min_n_ >= 1 && max_n_ >= min_n_, "ngram: needs 1 <= min_n <= max_n, got min_n=", min_n_,
                  ", max_n=", max_n_);
    SPECMOE_CHECK(choices_ >= 1, "ngram: choices must be at least 1, got ", choices_);
  }

  bool deterministic() const override { return true; }
  void attach(const DraftContext&) override {}

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, int capacity) override {
    auto state = std::make_unique<NgramState>();
    state->text.reserve(capacity);
    state->text.assign(prompt.begin(), prompt.end());
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      auto& state = static_cast<NgramState&>(*request.state);
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        gather_suffix(state, request.draft->tree, request.frontier[i]);
        look_up(state, (*request.proposals)[i].tokens);
      }
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict) override {
    auto& state = static_cast<NgramState&>(base);
    for (NodeId node : verdict.accepted) state.text.push_back(tree.token(node));
    state.text.push_back(verdict.next);
  }

 private:
  void gather_suffix(NgramState& state, const TokenTree& tree, NodeId node) const {
    state.suffix.clear();
    const auto wanted = static_cast<std::size_t>(max_n_);
    for (; node != TokenTree::kRoot && state.suffix.size() < wanted; node = tree.parent(node)) {
      state.suffix.push_back(tree.token(node));
    }
    for (std::size_t i = state.text.size(); i > 0 && state.suffix.size() < wanted; --i) {
      state.suffix.push_back(state.text[i - 1]);
    }
    std::reverse(state.suffix.begin(), state.suffix.end());
  }

  void look_up(const NgramState& state, std::vector<TokenId>& found) const {
    found.reserve(choices_);
    const std::int64_t length = static_cast<std::int64_t>(state.text.size());
    for (std::int64_t n = std::min<std::int64_t>(max_n_, state.suffix.size()); n >= min_n_; --n) {
      const auto pattern = state.suffix.end() - n;
      // The token after a match must exist, so a match ends before the last token of the text.
      for (std::int64_t begin = length - 1 - n; begin >= 0; --begin) {
        if (!std::equal(pattern, state.suffix.end(), state.text.begin() + begin)) continue;
        const TokenId next = state.text[begin + n];
        if (std::find(found.begin(), found.end(), next) == found.end()) found.push_back(next);
        if (static_cast<std::int64_t>(found.size()) == choices_) return;
      }
    }
  }

  std::int64_t max_n_;
  std::int64_t min_n_;
  std::int64_t choices_;
};

SPECMOE_REGISTER(drafters(), "ngram", Ngram,
                 "copies what followed the same last tokens earlier in the text (prompt lookup)");

}  // namespace
}  // namespace specmoe
