#include <numeric>

#include "core/logit_rows.h"
#include "draft/model_drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// The head's row of a token needs the target's hidden row at the token before, so the text's first token has none.
///
/// cache     rows of the text, then, in a step, of the tree: first the text's missing end, root last, then nodes
/// missing   the text's end that is not in the cache yet; the last is the root of the coming tree
/// features  [missing, W] the target's hidden rows before each
/// handed_on [staged, D] by each staged row
struct EagleState final : DraftState {
  std::unique_ptr<KVCache> cache;
  std::vector<TokenId> missing;
  std::vector<float> features;
  std::vector<float> handed_on;
  std::vector<std::int32_t> row_of_node;  // empty: this step staged nothing
  std::vector<TokenId> block_tokens;
  std::vector<std::int32_t> block_parents;
  std::vector<float> block_features;
  std::vector<std::int32_t> path;
};

/// A small head on the target's own hidden rows (Li et al. 2024, EAGLE, arXiv:2401.15077, and EAGLE-3,
/// arXiv:2503.01840; EAGLE-2 is a head of EAGLE with the topology `confidence`). In a draft, where the target has not
/// been yet, the head goes on from what it handed on itself. What it computed from that is dropped after the step, and
/// computed again from the target's rows.
class Eagle final : public Drafter {
 public:
  explicit Eagle(Params& params) : path_(params.required_text("path", "checkpoint folder of the draft head")) {}

  bool deterministic() const override { return false; }
  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_, true}}; }

  void attach(const DraftContext& context) override {
    try {
      head_ = context.target->draft_head(path_);
    } catch (const Error& error) {
      fail("eagle: ", error.what());
    }
    result_.taps = {head_.recycled};
    result_.want_experts = false;
  }
  std::vector<int> taps() const override { return head_.taps; }

  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) override {
    auto state = std::make_unique<EagleState>();
    state->cache = head_.model->new_cache(capacity);
    const std::span<const TokenId> pairs = prompt.subspan(1);
    if (pairs.empty()) return state;
    const std::size_t before_root = pairs.size() - 1;
    const std::size_t readable = std::min<std::size_t>(before_root, head_.model->info().max_positions);
    std::vector<float> features;
    features.reserve(readable * static_cast<std::size_t>(hidden.cols));
    for (std::size_t i = 0; i < readable; ++i) {
      const float* row = hidden.row(static_cast<std::int64_t>(i));
      features.insert(features.end(), row, row + hidden.cols);
    }
    prefill(*head_.model, *state->cache, pairs.first(readable), {}, features);
    for (std::size_t i = readable; i < pairs.size(); ++i) {
      append(*state, pairs[i], hidden, static_cast<std::int64_t>(i));
    }
    return state;
  }

  void propose(std::span<const ProposeRequest> requests) override {
    blocks_.clear();
    asked_.clear();
    result_.want_logits = false;
    for (const ProposeRequest& request : requests) {
      result_.want_logits |= !request.argmax_suffices;
      auto& state = static_cast<EagleState&>(*request.state);
      if (!stage(state, request)) continue;
      const bool root = request.frontier[0] == TokenTree::kRoot;
      blocks_.push_back({state.cache.get(), state.block_tokens, state.block_parents,
                         root ? LogitsWanted::kLast : LogitsWanted::kAll, state.block_features});
      asked_.push_back(&request);
    }
    if (blocks_.empty()) return;
    head_.model->forward(blocks_, result_);
    const float* handed_on = result_.tapped.data();
    for (std::size_t b = 0; b < asked_.size(); ++b) {
      auto& state = static_cast<EagleState&>(*asked_[b]->state);
      const std::size_t values = state.block_tokens.size() * width();
      state.handed_on.insert(state.handed_on.end(), handed_on, handed_on + values);
      handed_on += values;
      propose_rows(result_, result_.row_begin[b], *asked_[b], scratch_);
    }
  }

  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) override {
    auto& state = static_cast<EagleState&>(base);
    if (!state.row_of_node.empty()) {
      state.path.resize(state.missing.size());
      std::iota(state.path.begin(), state.path.end(), 0);
      state.cache->keep(state.path);
      state.missing.clear();
      state.features.clear();
      state.handed_on.clear();
      state.row_of_node.clear();
    }
    NodeId last = TokenTree::kRoot;
    for (NodeId node : verdict.accepted) {
      append(state, tree.token(node), hidden, last);
      last = node;
    }
    append(state, verdict.next, hidden, last);
  }

 private:
  /// A further token of the text, and row `before` of the hidden rows. What lies beyond the context is not remembered.
  void append(EagleState& state, TokenId token, HiddenRows hidden, std::int64_t before) const {
    if (text_length(state) > head_.model->info().max_positions) return;
    state.missing.push_back(token);
    state.features.insert(state.features.end(), hidden.row(before), hidden.row(before) + hidden.cols);
  }
  static int text_length(const EagleState& state) {
    return state.cache->committed() + static_cast<int>(state.missing.size());
  }

  std::size_t width() const { return static_cast<std::size_t>(head_.model->info().hidden_size); }

  /// Collects the rows that have to be computed to answer for the frontier. False where the head has nothing to go on
  /// from: after the text's first token, and beyond its context.
  bool stage(EagleState& state, const ProposeRequest& request) const {
    const TokenTree& tree = request.draft->tree;
    const int deepest = text_length(state) + tree.depth(request.frontier.back());
    if (state.missing.empty() || deepest > head_.model->info().max_positions) return false;
    state.block_tokens.clear();
    state.block_parents.clear();
    state.block_features.clear();
    if (request.frontier[0] == TokenTree::kRoot) {
      state.block_tokens = state.missing;
      state.block_parents.resize(state.missing.size());
      std::iota(state.block_parents.begin(), state.block_parents.end(), -1);
      state.block_features = state.features;
      state.row_of_node.assign(1, static_cast<std::int32_t>(state.missing.size()) - 1);
      return true;
    }
    const auto first = static_cast<std::int32_t>(state.handed_on.size() / width());  // rows staged so far
    state.row_of_node.resize(static_cast<std::size_t>(tree.size()), -1);
    for (NodeId node : request.frontier) {
      const std::int32_t parent = state.row_of_node[tree.parent(node)];
      const float* handed_on = state.handed_on.data() + static_cast<std::size_t>(parent) * width();
      state.row_of_node[node] = first + static_cast<std::int32_t>(state.block_tokens.size());
      state.block_tokens.push_back(tree.token(node));
      state.block_parents.push_back(parent);
      state.block_features.insert(state.block_features.end(), handed_on, handed_on + width());
    }
    return true;
  }

  std::string path_;
  DraftHead head_;
  ForwardResult result_;
  std::vector<RowBlock> blocks_;
  std::vector<const ProposeRequest*> asked_;
  std::vector<std::int32_t> scratch_;
};

SPECMOE_REGISTER(drafters(), "eagle", Eagle, "a head on the target's hidden rows (EAGLE, EAGLE-3)");

}  // namespace
}  // namespace specmoe
