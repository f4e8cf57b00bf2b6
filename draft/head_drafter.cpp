#include "draft/head_drafter.h"

#include <numeric>

#include "core/logit_rows.h"
#include "draft/model_drafter.h"
#include "kernels/check.h"

namespace specmoe {

/// The head's row of a token needs the target's hidden row at the token before, so the text's first token has none.
///
/// cache     rows of the text, then, in a step, of the tree: first the text's missing end, root last, then nodes
/// missing   the text's end that is not in the cache yet; the last is the root of the coming tree
/// features  [missing, W] the target's hidden rows before each
/// handed_on [staged, D] by each staged row
struct HeadDrafter::State final : DraftState {
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

void HeadDrafter::attach(const DraftContext& context) {
  try {
    head_ = context.target->draft_head(path_);
  } catch (const Error& error) {
    fail(name_, ": ", error.what());
  }
  SPECMOE_CHECK(head_.model->info().block_size == 0, name_, ": the head in '", path_,
                "' proposes whole blocks; draft with dflash(path=", path_, ")");
  result_.taps = {head_.recycled};
  result_.want_experts = false;
}

std::unique_ptr<DraftState> HeadDrafter::open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) {
  auto state = std::make_unique<State>();
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

void HeadDrafter::propose(std::span<const ProposeRequest> requests) {
  blocks_.clear();
  asked_.clear();
  result_.want_logits = false;
  for (const ProposeRequest& request : requests) {
    result_.want_logits |= !request.argmax_suffices;
    auto& state = static_cast<State&>(*request.state);
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
    auto& state = static_cast<State&>(*asked_[b]->state);
    const std::size_t values = state.block_tokens.size() * width();
    state.handed_on.insert(state.handed_on.end(), handed_on, handed_on + values);
    handed_on += values;
    propose_rows(result_, result_.row_begin[b], *asked_[b], scratch_);
  }
}

void HeadDrafter::commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) {
  auto& state = static_cast<State&>(base);
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

int HeadDrafter::text_length(const State& state) {
  return state.cache->committed() + static_cast<int>(state.missing.size());
}

/// A further token of the text, and row `before` of the hidden rows. What lies beyond the context is not remembered.
void HeadDrafter::append(State& state, TokenId token, HiddenRows hidden, std::int64_t before) const {
  if (text_length(state) > head_.model->info().max_positions) return;
  state.missing.push_back(token);
  state.features.insert(state.features.end(), hidden.row(before), hidden.row(before) + hidden.cols);
}

/// Collects the rows that have to be computed to answer for the frontier. False where the head has nothing to go on
/// from: after the text's first token, and beyond its context.
bool HeadDrafter::stage(State& state, const ProposeRequest& request) const {
  const TokenTree& tree = request.draft->tree;
  const int deepest = text_length(state) + tree.depth(request.frontier.back());
  if (state.missing.empty() || deepest > head_.model->info().max_positions) return false;
  if (request.frontier[0] == TokenTree::kRoot) {
    stage_text(state);
    return true;
  }
  state.block_tokens.clear();
  state.block_parents.clear();
  state.block_features.clear();
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

/// The text's missing end, which ends in the root.
void HeadDrafter::stage_text(State& state) const {
  state.block_tokens = state.missing;
  state.block_parents.resize(state.missing.size());
  std::iota(state.block_parents.begin(), state.block_parents.end(), -1);
  state.block_features = state.features;
  state.row_of_node.assign(1, static_cast<std::int32_t>(state.missing.size()) - 1);
}

}  // namespace specmoe
