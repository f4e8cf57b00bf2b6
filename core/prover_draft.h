#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/draw.h"
#include "core/enumerate.h"
#include "core/prover.h"

namespace specmoe::detail {

/// Rows of a Markov model after the nodes of a tree, by the state (last tokens, base V) that each node ends in.
template <class Real>
class NodeRows final : public ProbRows<Real> {
 public:
  NodeRows(const MarkovRows<Real>& rows, const std::vector<int>& states) : rows_(rows), states_(states) {}
  int vocab() const override { return rows_.vocab(); }
  ProbRow<Real> row(int n) override { return ProbRow<Real>(rows_.at_state(states_[n])); }

 private:
  const MarkovRows<Real>& rows_;
  const std::vector<int>& states_;
};

/// What a topology looks at: the draft itself, or a copy in doubles of an exact one.
template <class Real>
class GrowthMirror {
 public:
  explicit GrowthMirror(Draft<Real>& draft) : draft_(draft) {}
  void reset() { copy_.reset(draft_.tree.token(TokenTree::kRoot), draft_.rows.vocab()); }
  Draft<double>& view() {
    if constexpr (std::is_same_v<Real, double>) {
      return draft_;
    } else {
      copy_.law = draft_.law;
      for (int row = copy_.rows.size(); row < draft_.rows.size(); ++row) {
        const auto from = draft_.rows.dense(row);
        const int index = copy_.rows.add_dense();
        std::transform(from.begin(), from.end(), copy_.rows.dense(index).begin(),
                       [](const Real& value) { return static_cast<double>(value); });
      }
      for (NodeId n = copy_.tree.size(); n < draft_.tree.size(); ++n) {
        copy_.add(draft_.tree.parent(n), draft_.tree.token(n), draft_.row_of[n]);
      }
      return copy_;
    }
  }

 private:
  Draft<Real>& draft_;
  Draft<double> copy_;
};

/// Grows drafts on Markov models with the real drafting code. A text is known by its state: its last tokens, base V, as
/// many as the starting text has.
template <class Real>
class ToyDrafting {
 public:
  ToyDrafting(DraftLaw law, const TreePolicy& tree, const ProofModels& models, const DrawFunction& draw)
      : tree_(tree), draw_(draw), vocab_(models.target.vocab), mirror_(draft_) {
    draft_.law = law;
    const std::size_t used = law == DraftLaw::kMultiDrafter ? models.drafts.size() : 1;
    for (std::size_t i = 0; i < used; ++i) drafts_.emplace_back(models.drafts[i]);
    for (std::size_t i = 0; i < models.start.size(); ++i) state_count_ *= vocab_;
    for (TokenId token : models.start) start_state_ = next_state(start_state_, token);
  }

  int start_state() const { return start_state_; }
  int next_state(int state, TokenId token) const { return (state * vocab_ + token) % state_count_; }
  Draft<Real>& draft() { return draft_; }
  const Draft<Real>& draft() const { return draft_; }
  /// What the topology sees of the draft.
  Draft<double>& view() { return mirror_.view(); }
  /// [tree size] the state of the text that ends in each node.
  const std::vector<int>& states() const { return states_; }

  /// Level by level as core/grow.cpp does: ask the topology, draw, choose the next frontier; then prune.
  void grow(int state, UniformSource<Real>& uniforms) {
    draft_.reset(static_cast<TokenId>(state % vocab_), vocab_);
    mirror_.reset();
    states_.assign(1, state);
    frontier_.assign(1, TokenTree::kRoot);
    while (!frontier_.empty()) {
      propose();
      growth_.clear();
      tree_.expand(growth_view(), growth_);
      added_.clear();
      for (const Growth& growth : growth_) draw(growth, uniforms);
      for (NodeId node : added_) {
        states_.push_back(next_state(states_[draft_.tree.parent(node)], draft_.tree.token(node)));
      }
      kept_.clear();
      tree_.next_frontier(growth_view(), added_, kept_);
      frontier_.swap(kept_);
    }
    prune();
  }

 private:
  GrowthView<double> growth_view() { return {mirror_.view(), frontier_, first_rows_}; }

  void propose() {
    first_rows_.clear();
    for (NodeId node : frontier_) {
      first_rows_.push_back(draft_.rows.size());
      for (const MarkovRows<Real>& rows : drafts_) draft_.rows.add_dense(rows.at_state(states_[node]));
    }
  }
  void draw(const Growth& growth, UniformSource<Real>& uniforms) {
    const auto at = std::find(frontier_.begin(), frontier_.end(), growth.parent) - frontier_.begin();
    rows_.clear();
    for (std::size_t i = 0; i < drafts_.size(); ++i) rows_.push_back(first_rows_[at] + static_cast<std::int32_t>(i));
    if constexpr (std::is_same_v<Real, double>) {
      if (draw_) return draw_(draft_, growth.parent, growth.children, rows_, uniforms, added_);
    }
    draw_children(draft_, growth.parent, growth.children, std::span<const std::int32_t>(rows_), uniforms, added_);
  }
  void prune() {
    if (draft_.law != DraftLaw::kDeterministic || draft_.tree.size() == 1) return;
    kept_.clear();
    tree_.prune(growth_view(), kept_);
    if (kept_.empty()) return;
    draft_.tree = draft_.tree.subset(kept_);
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      draft_.row_of[i] = draft_.row_of[kept_[i]];
      states_[i] = states_[kept_[i]];
    }
    draft_.row_of.resize(kept_.size());
  }

  const TreePolicy& tree_;
  const DrawFunction& draw_;
  std::vector<MarkovRows<Real>> drafts_;
  int vocab_;
  int state_count_ = 1;
  int start_state_ = 0;
  Draft<Real> draft_;
  GrowthMirror<Real> mirror_;
  std::vector<int> states_;
  std::vector<NodeId> frontier_, added_, kept_;
  std::vector<std::int32_t> first_rows_, rows_;
  std::vector<Growth> growth_;
};

}  // namespace specmoe::detail
