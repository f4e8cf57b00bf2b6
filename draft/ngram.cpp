#include <algorithm>
#include <vector>

#include "draft/ngram_rule.h"

namespace specmoe {
namespace {

/// Found of ngram_rule.
struct FoundTokens {
  std::vector<TokenId>& tokens;
  int size() const { return static_cast<int>(tokens.size()); }
  bool contains(TokenId token) const { return std::find(tokens.begin(), tokens.end(), token) != tokens.end(); }
  void add(TokenId token) { tokens.push_back(token); }
};

/// Team of ngram_rule.
struct OneSearcher {
  template <class Condition>
  static int last_where(int end, const Condition& condition) {
    for (int i = end - 1; i >= 0; --i) {
      if (condition(i)) return i;
    }
    return -1;
  }
};

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
      : rule_{params.integer("max_n", 4, "longest match, tokens"), params.integer("min_n", 1, "shortest match, tokens"),
              params.integer("choices", 4, "most tokens proposed at one node")} {
    SPECMOE_CHECK(rule_.min_n >= 1 && rule_.max_n >= rule_.min_n,
                  "ngram: needs 1 <= min_n <= max_n, got min_n=", rule_.min_n, ", max_n=", rule_.max_n);
    SPECMOE_CHECK(rule_.choices >= 1, "ngram: choices must be at least 1, got ", rule_.choices);
  }

  bool deterministic() const override { return true; }
  std::optional<DraftRecipe> recipe() const override { return DraftRecipe{nullptr, rule_}; }
  void attach(const DraftContext&) override {}

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows, int capacity) override {
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
        std::vector<TokenId>& tokens = (*request.proposals)[i].tokens;
        tokens.reserve(static_cast<std::size_t>(std::min(rule_.choices, request.draft->rows.vocab())));
        FoundTokens found{tokens};
        ngram_rule<OneSearcher>(state.text, state.suffix, rule_, found);
      }
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows) override {
    auto& state = static_cast<NgramState&>(base);
    for (NodeId node : verdict.accepted) state.text.push_back(tree.token(node));
    state.text.push_back(verdict.next);
  }

 private:
  void gather_suffix(NgramState& state, const TokenTree& tree, NodeId node) const {
    state.suffix.clear();
    const auto wanted = static_cast<std::size_t>(rule_.max_n);
    for (; node != TokenTree::kRoot && state.suffix.size() < wanted; node = tree.parent(node)) {
      state.suffix.push_back(tree.token(node));
    }
    for (std::size_t i = state.text.size(); i > 0 && state.suffix.size() < wanted; --i) {
      state.suffix.push_back(state.text[i - 1]);
    }
    std::reverse(state.suffix.begin(), state.suffix.end());
  }

  NgramRule rule_;
};

SPECMOE_REGISTER(drafters(), "ngram", Ngram,
                 "copies what followed the same last tokens earlier in the text (prompt lookup)");

}  // namespace
}  // namespace specmoe
