#include <algorithm>
#include <vector>

#include "core/drafter.h"
#include "core/logit_rows.h"

namespace specmoe {
namespace {

/// reference  the committed text followed by the target's own greedy continuation of it
struct SyntheticState final : DraftState {
  std::vector<TokenId> reference;
  std::size_t committed = 0;  // tokens of reference that are the text
  std::unique_ptr<KVCache> cache;
  int limit = 0;
};

/// Proposes the target's own greedy continuation, each token right with a set probability: engine studies with any
/// acceptance, without a drafter. The continuation is decoded when a sequence starts, outside the decode time.
class Synthetic final : public Drafter {
 public:
  explicit Synthetic(Params& params)
      : alpha_(params.real("alpha", 0.8, "probability that a proposed token is the target's own")) {
    SPECMOE_CHECK(alpha_ >= 0.0 && alpha_ <= 1.0, "synthetic: alpha must be in [0, 1], got ", alpha_);
  }

  bool deterministic() const override { return true; }
  void attach(const DraftContext& context) override { target_ = context.target; }

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows, int capacity) override {
    auto state = std::make_unique<SyntheticState>();
    state->limit = std::min(capacity, target_->info().max_positions);
    state->reference.reserve(state->limit + 1);
    state->reference.assign(prompt.begin(), prompt.end());
    state->committed = prompt.size();
    state->cache = target_->new_cache(state->limit);
    prefill(*target_, *state->cache, prompt.first(prompt.size() - 1));
    continuation(*state, static_cast<std::size_t>(state->limit) - 1);
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      auto& state = static_cast<SyntheticState&>(*request.state);
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        propose_at(state, request, request.frontier[i], (*request.proposals)[i]);
      }
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows) override {
    auto& state = static_cast<SyntheticState&>(base);
    for (NodeId node : verdict.accepted) append(state, tree.token(node));
    append(state, verdict.next);
  }

 private:
  void propose_at(SyntheticState& state, const ProposeRequest& request, NodeId node, Proposal& proposal) {
    constexpr int kChoices = 8;
    const TokenTree& tree = request.draft->tree;
    const std::size_t position = state.committed + tree.depth(node);  // of the token to propose
    if (static_cast<int>(position) >= state.limit) return;
    const TokenId right = continuation(state, position);
    const int vocab = target_->info().vocab_size;
    const bool hit = request.uniforms->at({node, Purpose::kPlugin, 0}).less(alpha_);
    if (hit) proposal.tokens.push_back(right);
    for (int i = 1; i < std::min(kChoices, vocab); ++i) proposal.tokens.push_back((right + i) % vocab);
  }

  /// The reference's token at `position`, decoded as far as needed.
  TokenId continuation(SyntheticState& state, std::size_t position) {
    while (state.reference.size() <= position) {
      const std::span<const TokenId> fresh = std::span(state.reference).subspan(state.cache->committed());
      prefill(*target_, *state.cache, fresh.first(fresh.size() - 1));
      constexpr std::int32_t kOnPrefix = -1;
      const RowBlock block{state.cache.get(), fresh.last(1), {&kOnPrefix, 1}, LogitsWanted::kLast};
      target_->forward({&block, 1}, result_);
      constexpr std::int32_t kFirst = 0;
      state.cache->keep({&kFirst, 1});
      state.reference.push_back(checked_argmax(result_, 0, TokenTree::kRoot));
    }
    return state.reference[position];
  }

  static void append(SyntheticState& state, TokenId token) {
    if (state.committed < state.reference.size() && state.reference[state.committed] != token) {
      // The text left the continuation (it was sampled): what followed no longer holds.
      state.reference.resize(state.committed);
      state.cache->truncate(std::min(state.cache->committed(), static_cast<int>(state.committed)));
    }
    if (state.committed == state.reference.size()) state.reference.push_back(token);
    ++state.committed;
  }

  double alpha_;
  std::shared_ptr<LanguageModel> target_;
  ForwardResult result_;
};

SPECMOE_REGISTER(drafters(), "synthetic", Synthetic,
                 "the target's own continuation, right with probability alpha (engine studies)");

}  // namespace
}  // namespace specmoe
