#include <algorithm>
#include <numeric>

#include "core/logit_rows.h"
#include "draft/depth_proposals.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// text       committed tokens; the last is the root of the coming tree
/// cache      holds a prefix of the text, and in a step the text's missing end, then masks
/// missing    rows of the text that this step has staged; 0: it was not asked
/// first_row  of the pass that this step's proposals come from: the root's, those of the masks following
struct PardState final : DraftState {
  std::vector<TokenId> text;
  std::unique_ptr<KVCache> cache;
  int missing = 0;
  int first_row = 0;
  DepthProposals known;
  std::vector<TokenId> block_tokens;
  std::vector<std::int32_t> block_parents;
  std::vector<std::int32_t> path;
};

/// A language model that was taught to go on from mask tokens as if they were the text's next ones. One pass over the
/// root and `depth` - 1 masks behind it proposes for `depth` depths, where `independent` takes a pass for each; what is
/// proposed after a node hangs on its depth alone, not on what was drafted before it.
///
/// source  PARD, An et al. 2025, arXiv:2504.18583; the mask token is `pard_token` of the checkpoint's config.json
class Pard final : public Drafter {
 public:
  explicit Pard(Params& params)
      : path_(params.required_text("path", "checkpoint folder of the draft model")),
        dtype_(
            params.text("dtype", "target", "of its packed weights: float32, bfloat16, int8, or what the target has")),
        depth_(params.integer("depth", 8, "depths that one pass proposes for, the root's included")) {
    SPECMOE_CHECK(depth_ >= 1 && depth_ <= 64, "pard: depth must be from 1 to 64, got ", depth_);
  }

  bool deterministic() const override { return false; }
  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_}}; }

  void attach(const DraftContext& context) override {
    SPECMOE_CHECK(context.load_model != nullptr, "pard: this engine was given no way to load the draft model '", path_,
                  "'");
    const ModelInfo& target = context.target->info();
    model_ = context.load_model(path_, dtype_ == "target" ? target.dtype : dtype_);
    const ModelInfo& info = model_->info();
    SPECMOE_CHECK(info.mask_token.has_value(), "pard: '", path_,
                  "' was not made for it: its config.json names no pard_token; draft with independent(path=", path_,
                  ")");
    mask_ = *info.mask_token;
    SPECMOE_CHECK(info.vocab_size == target.vocab_size, "pard: the drafter's vocabulary has ", info.vocab_size,
                  " tokens, the target's ", target.vocab_size, "; they must be the same");
  }

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows, int capacity) override {
    const int limit = model_->info().max_positions;
    SPECMOE_CHECK(static_cast<int>(prompt.size()) < limit, "pard: the prompt has ", prompt.size(),
                  " tokens, the drafter's context is ", limit);
    auto state = std::make_unique<PardState>();
    state->text.assign(prompt.begin(), prompt.end());
    state->text.reserve(capacity);
    state->cache = model_->new_cache(capacity + depth_);
    prefill(*model_, *state->cache, prompt.first(prompt.size() - 1));
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    if (requests[0].frontier[0] == TokenTree::kRoot) run(requests);  // all sequences begin a step together
    for (const ProposeRequest& request : requests) {
      PardState& state = state_of(request);
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        const int depth = request.draft->tree.depth(request.frontier[i]);
        if (depth < state.known.depths()) state.known.propose(result_, state.first_row + depth, request, i, scratch_);
      }
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows) override {
    auto& state = static_cast<PardState&>(base);
    if (state.missing > 0) {
      state.path.resize(static_cast<std::size_t>(state.missing));
      std::iota(state.path.begin(), state.path.end(), 0);
      state.cache->keep(state.path);
      state.missing = 0;
    }
    for (NodeId node : verdict.accepted) state.text.push_back(tree.token(node));
    state.text.push_back(verdict.next);
  }

 private:
  static PardState& state_of(const ProposeRequest& request) { return static_cast<PardState&>(*request.state); }

  void run(std::span<const ProposeRequest> requests) {
    blocks_.clear();
    asked_.clear();
    result_.want_logits = false;
    for (const ProposeRequest& request : requests) {
      PardState& state = state_of(request);
      stage(state);
      if (state.missing == 0) continue;
      result_.want_logits |= !request.argmax_suffices;
      blocks_.push_back({state.cache.get(), state.block_tokens, state.block_parents, LogitsWanted::kAll});
      asked_.push_back(&state);
    }
    if (blocks_.empty()) return;
    model_->forward(blocks_, result_);
    for (std::size_t b = 0; b < asked_.size(); ++b) {
      asked_[b]->first_row = result_.row_begin[b] + asked_[b]->missing - 1;
    }
  }

  /// The text's missing end and the masks behind it, as far as the drafter's context goes.
  void stage(PardState& state) const {
    const int length = static_cast<int>(state.text.size());
    const int depths = std::clamp(model_->info().max_positions - length + 1, 0, depth_);
    state.known.begin(depths);
    if (depths == 0) return;
    state.missing = length - state.cache->committed();
    state.block_tokens.assign(state.text.end() - state.missing, state.text.end());
    state.block_tokens.resize(static_cast<std::size_t>(state.missing + depths - 1), mask_);
    state.block_parents.resize(state.block_tokens.size());
    std::iota(state.block_parents.begin(), state.block_parents.end(), -1);
  }

  const std::string path_;
  const std::string dtype_;
  const int depth_;
  TokenId mask_ = 0;
  std::shared_ptr<LanguageModel> model_;
  ForwardResult result_;
  std::vector<RowBlock> blocks_;
  std::vector<PardState*> asked_;
  std::vector<std::int32_t> scratch_;
};

SPECMOE_REGISTER(drafters(), "pard", Pard, "a language model that reads masks: all depths in one pass (PARD)");

}  // namespace
}  // namespace specmoe
