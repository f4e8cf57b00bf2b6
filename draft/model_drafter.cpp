#include "draft/model_drafter.h"

#include <algorithm>

#include "core/logit_rows.h"
#include "kernels/check.h"

namespace specmoe {

/// text    committed tokens; the last is the root of the coming tree
/// cache   holds a prefix of the text, and in a step the staged rows: first the text's missing end, root last, then the
///         tree's nodes level by level
/// kept    positions that the committed rows of the cache take
/// staged  [cache->staged()] token and parent row of each staged row, and the positions up to and with it
/// full    this step has come to the end of the drafter's context: nodes behind have no row to hang on
struct ModelDrafter::State final : DraftState {
  struct Row {
    TokenId token;
    std::int32_t parent;
    int positions;
  };
  std::vector<TokenId> text;
  std::unique_ptr<KVCache> cache;
  int kept = 0;
  bool full = false;
  std::vector<Row> staged;
  std::vector<std::int32_t> row_of_node;
  std::vector<TokenId> block_tokens;
  std::vector<std::int32_t> block_parents;
  std::vector<std::int32_t> path;
};

void propose_row(const ForwardResult& result, int row, NodeId node, const ProposeRequest& request, Proposal& proposal,
                 std::vector<std::int32_t>& scratch) {
  if (request.argmax_suffices) {
    proposal.tokens.push_back(checked_argmax(result, row, node));
    return;
  }
  // A greedy draft still ranks tokens by the unscaled distribution: confidence topologies read it.
  SamplingParams sampling = *request.sampling;
  if (sampling.greedy()) sampling = SamplingParams{.temperature = 1.0};
  const std::span<const float> logits =
      request.changes->applied(checked_logits(result, row, node), request.draft->tree, node);
  if (logits.empty()) return;
  const int index = request.draft->rows.add_dense();
  logits_to_probs(logits, node, sampling, request.draft->rows.dense(index), scratch);
  proposal.rows.push_back(index);
}

void propose_rows(const ForwardResult& result, int first_row, const ProposeRequest& request,
                  std::vector<std::int32_t>& scratch) {
  for (std::size_t i = 0; i < request.frontier.size(); ++i) {
    propose_row(result, first_row + static_cast<int>(i), request.frontier[i], request, (*request.proposals)[i],
                scratch);
  }
}

std::unique_ptr<DraftState> ModelDrafter::open(std::span<const TokenId> prompt, HiddenRows, int capacity) {
  const int limit = model_->info().max_positions;
  auto state = std::make_unique<State>();
  for (const TokenId token : prompt.first(prompt.size() - 1)) state->kept += model_->positions(token);
  const int positions = state->kept + model_->positions(prompt.back());
  SPECMOE_CHECK(positions < limit, name_, ": the prompt has ", positions, " tokens, the drafter's context is ", limit);
  state->text.assign(prompt.begin(), prompt.end());
  state->text.reserve(capacity);
  state->cache = model_->new_cache(capacity);
  prefill(*model_, *state->cache, prompt.first(prompt.size() - 1));
  return state;
}

void ModelDrafter::propose(std::span<const ProposeRequest> requests) {
  blocks_.clear();
  asked_.clear();
  result_.want_logits = false;
  for (const ProposeRequest& request : requests) {
    result_.want_logits |= !request.argmax_suffices;
    auto& state = static_cast<State&>(*request.state);
    if (!stage(state, request)) continue;
    const bool root = request.frontier[0] == TokenTree::kRoot;
    blocks_.push_back(
        {state.cache.get(), state.block_tokens, state.block_parents, root ? LogitsWanted::kLast : LogitsWanted::kAll});
    asked_.push_back(&request);
  }
  if (blocks_.empty()) return;
  model_->forward(blocks_, result_);
  for (std::size_t b = 0; b < asked_.size(); ++b) propose_rows(result_, result_.row_begin[b], *asked_[b], scratch_);
}

void ModelDrafter::commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows) {
  auto& state = static_cast<State&>(base);
  if (!state.staged.empty()) keep_accepted(state, tree, verdict);
  for (NodeId node : verdict.accepted) state.text.push_back(tree.token(node));
  state.text.push_back(verdict.next);
  state.staged.clear();
  state.row_of_node.clear();
  state.full = false;
}

/// Collects the rows that have to be computed to answer for the frontier. False when the text has outgrown the
/// drafter's context: it then proposes nothing.
bool ModelDrafter::stage(State& state, const ProposeRequest& request) const {
  if (state.full) return false;
  state.block_tokens.clear();
  state.block_parents.clear();
  const TokenTree& tree = request.draft->tree;
  const std::size_t before = state.staged.size();
  int deepest = 0;
  const auto push = [&](TokenId token, std::int32_t parent) {
    state.block_tokens.push_back(token);
    state.block_parents.push_back(parent);
    const int positions = (parent < 0 ? state.kept : state.staged[parent].positions) + model_->positions(token);
    state.staged.push_back({token, parent, positions});
    deepest = std::max(deepest, positions);
  };
  for (NodeId node : request.frontier) {
    if (node == TokenTree::kRoot) {
      const int missing = static_cast<int>(state.text.size()) - state.cache->committed();
      for (int i = 0; i < missing; ++i) push(state.text[state.cache->committed() + i], i - 1);
    } else {
      push(tree.token(node), state.row_of_node[tree.parent(node)]);
    }
    if (static_cast<int>(state.row_of_node.size()) <= node) state.row_of_node.resize(node + 1, -1);
    state.row_of_node[node] = static_cast<std::int32_t>(state.staged.size()) - 1;
  }
  state.full = deepest > model_->info().max_positions;
  if (state.full) state.staged.resize(before);
  return !state.full;
}

/// Follows the accepted tokens through the staged rows. Equal siblings have equal rows, so any of them will do, and
/// nodes that were never asked about (the last level) are simply missing: they are computed in the next step.
void ModelDrafter::keep_accepted(State& state, const TokenTree& tree, const Verdict& verdict) {
  state.path.clear();
  const std::int32_t root_row = state.row_of_node[TokenTree::kRoot];
  for (std::int32_t row = 0; row <= root_row; ++row) state.path.push_back(row);
  std::int32_t current = root_row;
  for (NodeId node : verdict.accepted) {
    const auto is_next = [&](const State::Row& row) { return row.parent == current && row.token == tree.token(node); };
    const auto found = std::find_if(state.staged.begin() + current + 1, state.staged.end(), is_next);
    if (found == state.staged.end()) break;
    current = static_cast<std::int32_t>(found - state.staged.begin());
    state.path.push_back(current);
  }
  state.cache->keep(state.path);
  state.kept = state.staged[current].positions;
}

}  // namespace specmoe
