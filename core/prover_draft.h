#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/draw.h"
#include "core/enumerate.h"
#include "core/grow_level.h"
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

  void grow(int state, UniformSource<Real>& uniforms) {
    draft_.reset(static_cast<TokenId>(state % vocab_), vocab_);
    mirror_.reset();
    states_.assign(1, state);
    growth_.frontier.assign(1, TokenTree::kRoot);
    const auto view = [this] { return GrowthView<double>{mirror_.view(), growth_.frontier, growth_.frontier_rows}; };
    while (!growth_.frontier.empty()) {
      propose();
      grow_level(draft_, tree_, tree_.max_depth(), growth_, view,
                 [&](std::size_t i, Growth growth, std::vector<NodeId>& added) { draw(i, growth, uniforms, added); });
      for (NodeId node : growth_.added) {
        states_.push_back(next_state(states_[draft_.tree.parent(node)], draft_.tree.token(node)));
      }
    }
    prune_grown(draft_, tree_, growth_, view);
    for (std::size_t i = 0; i < growth_.kept.size(); ++i) states_[i] = states_[growth_.kept[i]];
  }

 private:
  void propose() {
    growth_.frontier_rows.clear();
    for (NodeId node : growth_.frontier) {
      growth_.frontier_rows.push_back(draft_.rows.size());
      for (const MarkovRows<Real>& rows : drafts_) draft_.rows.add_dense(rows.at_state(states_[node]));
    }
  }
  void draw(std::size_t at, Growth growth, UniformSource<Real>& uniforms, std::vector<NodeId>& added) {
    rows_.clear();
    for (std::size_t i = 0; i < drafts_.size(); ++i) {
      rows_.push_back(growth_.frontier_rows[at] + static_cast<std::int32_t>(i));
    }
    if constexpr (std::is_same_v<Real, double>) {
      if (draw_) return draw_(draft_, growth.parent, growth.children, rows_, uniforms, added);
    }
    draw_children(draft_, growth.parent, growth.children, std::span<const std::int32_t>(rows_), uniforms, added);
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
  GrowthState growth_;
  std::vector<std::int32_t> rows_;
};

}  // namespace specmoe::detail
