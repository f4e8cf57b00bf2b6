#include <numeric>

#include "core/logit_rows.h"
#include "draft/depth_proposals.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// text      committed tokens but the root of the coming tree; what lies beyond the context is not remembered
/// root      the last token
/// features  [missing, W] the target's hidden rows at the end of the text that is not in the cache yet
/// first_row of the block in the pass that this step's proposals come from
struct DflashState final : DraftState {
  std::vector<TokenId> text;
  TokenId root = 0;
  std::vector<float> features;
  std::unique_ptr<KVCache> cache;
  int first_row = 0;
  DepthProposals known;
  std::vector<TokenId> block_tokens;
};

/// A head on the target's hidden rows that fills in a block of mask tokens behind the text in one pass, for all depths
/// at once. What is proposed after a node hangs on its depth alone, not on what was drafted before it.
///
/// source  DFlash, arXiv:2602.06036
class Dflash final : public Drafter {
 public:
  explicit Dflash(Params& params)
      : path_(params.required_text("path", "folder of the head")),
        block_(params.integer("block", 0, "rows of a block, the root's included; 0: as many as it was trained for")) {
    SPECMOE_CHECK(block_ == 0 || (block_ >= 2 && block_ <= 64), "dflash: block must be 0 or from 2 to 64, got ",
                  block_);
  }

  bool deterministic() const override { return false; }
  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_, DraftCheckpoint::Kind::kDraftHead}}; }
  std::vector<int> taps() const override { return head_.taps; }

  void attach(const DraftContext& context) override {
    try {
      head_ = context.target->draft_head(path_);
    } catch (const Error& error) {
      fail("dflash: ", error.what());
    }
    const ModelInfo& info = head_.model->info();
    SPECMOE_CHECK(info.block_size > 0, "dflash: the head in '", path_,
                  "' does not propose blocks: its config.json has no dflash_config; draft with eagle(path=", path_,
                  ")");
    rows_ = block_ == 0 ? info.block_size : block_;
    reserve_chain(static_cast<std::size_t>(rows_));
  }

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) override {
    auto state = std::make_unique<DflashState>();
    state->cache = head_.model->new_cache(capacity + rows_);
    state->root = prompt.back();
    state->block_tokens.assign(static_cast<std::size_t>(rows_), *head_.model->info().mask_token);
    for (std::size_t i = 0; i + 1 < prompt.size(); ++i) append(*state, prompt[i], hidden, static_cast<std::int64_t>(i));
    prefill(*head_.model, *state->cache, state->text, {}, state->features);
    state->features.clear();
    state->features.reserve(static_cast<std::size_t>(rows_ * hidden.cols));  // a step keeps no more than a block
    state->text.reserve(static_cast<std::size_t>(capacity));
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    if (requests[0].frontier[0] == TokenTree::kRoot) run(requests);  // all sequences begin a step together
    for (const ProposeRequest& request : requests) {
      DflashState& state = state_of(request);
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        const int depth = request.draft->tree.depth(request.frontier[i]);
        if (depth >= state.known.depths()) continue;
        state.known.propose(result_, state.first_row + depth + 1, request, i, scratch_);
      }
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) override {
    auto& state = static_cast<DflashState&>(base);
    NodeId node = TokenTree::kRoot;
    append(state, state.root, hidden, node);
    for (const NodeId next : verdict.accepted) {
      node = next;
      append(state, tree.token(node), hidden, node);
    }
    state.root = verdict.next;
  }

 private:
  static DflashState& state_of(const ProposeRequest& request) { return static_cast<DflashState&>(*request.state); }

  /// A token of the text with the target's hidden rows at it.
  void append(DflashState& state, TokenId token, HiddenRows hidden, std::int64_t row) const {
    if (static_cast<int>(state.text.size()) >= head_.model->info().max_positions) return;
    state.text.push_back(token);
    state.features.insert(state.features.end(), hidden.row(row), hidden.row(row) + hidden.cols);
  }

  /// The end of the text that is not in the cache: long where the topology has not asked for a while.
  static std::span<const TokenId> missing(const DflashState& state) {
    return std::span(state.text).subspan(static_cast<std::size_t>(state.cache->committed()));
  }

  /// Makes parents_ long enough for so many rows that follow one another.
  void reserve_chain(std::size_t rows) {
    if (rows <= parents_.size()) return;
    parents_.resize(rows);
    std::iota(parents_.begin(), parents_.end(), -1);
  }

  /// Whether the head's context has room for a block behind the text.
  bool fits(const DflashState& state) const {
    return static_cast<int>(state.text.size()) + rows_ <= head_.model->info().max_positions;
  }

  /// Two passes: over the rows of the text that are new, and over the blocks.
  void run(std::span<const ProposeRequest> requests) {
    blocks_.clear();
    for (const ProposeRequest& request : requests) reserve_chain(missing(state_of(request)).size());
    for (const ProposeRequest& request : requests) {
      DflashState& state = state_of(request);
      state.known.begin(fits(state) ? rows_ - 1 : 0);
      const std::span<const TokenId> tokens = missing(state);
      if (!fits(state) || tokens.empty()) continue;
      blocks_.push_back(
          {state.cache.get(), tokens, std::span(parents_).first(tokens.size()), LogitsWanted::kNone, state.features});
    }
    if (!blocks_.empty()) head_.model->forward(blocks_, context_);
    for (const RowBlock& block : blocks_) keep_all(*block.cache);
    run_blocks(requests);
  }

  void run_blocks(std::span<const ProposeRequest> requests) {
    blocks_.clear();
    asked_.clear();
    result_.want_logits = false;
    result_.want_experts = false;
    for (const ProposeRequest& request : requests) {
      DflashState& state = state_of(request);
      if (state.known.depths() == 0) continue;
      state.features.clear();
      state.block_tokens[0] = state.root;
      result_.want_logits |= !request.argmax_suffices;
      blocks_.push_back({state.cache.get(), state.block_tokens, std::span(parents_).first(state.block_tokens.size()),
                         LogitsWanted::kAll});
      asked_.push_back(&state);
    }
    if (blocks_.empty()) return;
    head_.model->forward(blocks_, result_);
    for (std::size_t b = 0; b < asked_.size(); ++b) {
      asked_[b]->first_row = result_.row_begin[b];
      asked_[b]->cache->truncate(asked_[b]->cache->committed());
    }
  }

  void keep_all(KVCache& cache) {
    path_rows_.resize(static_cast<std::size_t>(cache.staged()));
    std::iota(path_rows_.begin(), path_rows_.end(), 0);
    cache.keep(path_rows_);
  }

  const std::string path_;
  const int block_;
  int rows_ = 0;  // of a block
  DraftHead head_;
  ForwardResult result_, context_;
  std::vector<RowBlock> blocks_;
  std::vector<DflashState*> asked_;
  std::vector<std::int32_t> parents_;  // -1, 0, 1, ...
  std::vector<std::int32_t> path_rows_;
  std::vector<std::int32_t> scratch_;
};

SPECMOE_REGISTER(drafters(), "dflash", Dflash, "a head that fills in a block of masks in one pass (DFlash)");

}  // namespace
}  // namespace specmoe
