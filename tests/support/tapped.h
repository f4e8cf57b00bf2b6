#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/drafter.h"
#include "core/grow.h"
#include "core/logit_rows.h"
#include "core/tree_policy.h"

namespace specmoe::test {

/// The target beside a drafter, for the hidden rows that the drafter asks for.
class Tapped {
 public:
  Tapped(std::shared_ptr<LanguageModel> target, const Drafter& drafter) : target_(std::move(target)) {
    result_.taps = drafter.taps();
  }

  std::unique_ptr<DraftState> open(Drafter& drafter, std::span<const TokenId> text) {
    cache_ = target_->new_cache(200);
    rows_ = prefill(*target_, *cache_, text.first(text.size() - 1), result_.taps);
    return drafter.open(text, view(rows_), 200);
  }

  void commit(Drafter& drafter, DraftState& state, const TokenTree& tree, const Verdict& verdict) {
    const RowBlock block{cache_.get(), tree.tokens(), tree.parents(), LogitsWanted::kNone};
    target_->forward({&block, 1}, result_);
    std::vector<std::int32_t> path = {TokenTree::kRoot};
    path.insert(path.end(), verdict.accepted.begin(), verdict.accepted.end());
    cache_->keep(path);
    drafter.commit(state, tree, verdict, view(result_.tapped));
  }

  /// Keeps the first `accepted` nodes of a chain and `next` behind them, and adds them to the text.
  void advance(Drafter& drafter, DraftState& state, const TokenTree& chain, int accepted, TokenId next,
               std::vector<TokenId>& text) {
    Verdict verdict;
    for (NodeId node = 1; node <= accepted; ++node) verdict.accepted.push_back(node);
    verdict.next = next;
    commit(drafter, state, chain, verdict);
    for (const NodeId node : verdict.accepted) text.push_back(chain.token(node));
    text.push_back(next);
  }

 private:
  HiddenRows view(const std::vector<float>& rows) const {
    if (result_.taps.empty()) return {};
    const auto width = static_cast<std::int64_t>(result_.taps.size()) * target_->info().hidden_size;
    return kernels::contiguous(rows.data(), static_cast<std::int64_t>(rows.size()) / width, width);
  }

  std::shared_ptr<LanguageModel> target_;
  std::unique_ptr<KVCache> cache_;
  std::vector<float> rows_;
  ForwardResult result_;
};

/// One draft of a sequence whose text is `text`, for a request with a logits processor, if there is one.
inline Draft<float> draft_after(const std::shared_ptr<LanguageModel>& target, Drafter& drafter, DraftState& state,
                                const std::string& tree_spec, const std::vector<TokenId>& text,
                                const SamplingParams& sampling, std::shared_ptr<LogitsProcessor> processor = nullptr) {
  const auto tree = tree_policies().create(tree_spec);
  PhiloxUniforms uniforms(sampling.seed, 0, 0);
  Draft<float> draft;
  draft.reset(text.back(), target->info().vocab_size);
  draft.law = effective_law(drafter, *tree, sampling);
  LogitChanges changes;
  changes.reset(target->info().vocab_size, 0, text, sampling, std::move(processor));
  GrowRequest request{&state, &draft, &sampling, &changes, &uniforms, tree->max_depth()};
  GrowWorkspace workspace;
  grow({&request, 1}, drafter, *tree, workspace);
  return draft;
}

/// The first draft after `prompt` of a drafter that is attached to `target`, for a request with a logits processor, if
/// there is one.
inline Draft<float> first_draft(const std::shared_ptr<LanguageModel>& target, Drafter& drafter,
                                const std::string& tree_spec, const std::vector<TokenId>& prompt,
                                const SamplingParams& sampling, std::shared_ptr<LogitsProcessor> processor = nullptr) {
  const auto state = Tapped(target, drafter).open(drafter, prompt);
  return draft_after(target, drafter, *state, tree_spec, prompt, sampling, std::move(processor));
}

}  // namespace specmoe::test
