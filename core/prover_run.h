#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "core/check_verdict.h"
#include "core/prover_draft.h"

namespace specmoe::detail {

/// One proof in one scalar type.
template <class Real>
class ProofRun {
 public:
  ProofRun(const AcceptancePolicy& policy, DraftLaw law, const TreePolicy& tree, const ProofModels& models,
           const ProofOptions& options, int length)
      : policy_(policy),
        tree_(tree),
        options_(options),
        target_(models.target),
        drafting_(law, tree, models, options.draw),
        vocab_(models.target.vocab),
        length_(length) {
    by_length_.resize(length_ + 1);
    for (int k = 0, size = 1; k <= length_; ++k, size *= vocab_) by_length_[k].assign(size, Real(0));
  }

  /// Visits every outcome; see(*this) is called after each.
  template <class See>
  void visit(const See& see) {
    using Again = typename Enumerator<Real>::Again;
    for (Again again = Again::kFromStart; again != Again::kNever; again = uniforms_.next()) {
      if (again == Again::kFromStart) {
        run_from_start();
      } else {
        emitted_.resize(emitted_before_);
        judge();
      }
      see(*this);
      constexpr std::int64_t kBetweenPolls = 64;
      if (options_.poll && ++visited_ % kBetweenPolls == 0) options_.poll();
    }
  }

  /// The law of the first `length` tokens, completed by the target where fewer were emitted.
  void collect() {
    visit([](ProofRun& run) { run.count(); });
    for (int k = 1; k < length_; ++k) {
      for (std::size_t text = 0; text < by_length_[k].size(); ++text) {
        if (by_length_[k][text] == Real(0)) continue;
        add_continuations(by_length_[k][text], k, text, by_length_[k + 1]);
      }
    }
  }

  const std::vector<Real>& law() const { return by_length_[length_]; }
  const Real& expected_tokens() const { return expected_tokens_; }
  const Real& total_weight() const { return total_weight_; }
  std::int64_t outcomes() const { return outcomes_; }

  std::vector<Real> target_law() const {
    std::vector<Real> law = {Real(1)};
    for (int k = 0; k < length_; ++k) {
      std::vector<Real> longer(law.size() * vocab_, Real(0));
      for (std::size_t text = 0; text < law.size(); ++text) add_continuations(law[text], k, text, longer);
      law = std::move(longer);
    }
    return law;
  }

  const Enumerator<Real>& uniforms() const { return uniforms_; }
  const Draft<Real>& draft() const { return drafting_.draft(); }
  const std::vector<TokenId>& emitted() const { return emitted_; }

 private:
  /// The state after `text`, a number of `length` digits base V, on top of the starting text.
  int state_after(int length, std::size_t text) const {
    std::size_t digits = 1;
    for (int k = 0; k < length; ++k) digits *= vocab_;
    int state = drafting_.start_state();
    for (; digits > 1; text %= digits) {
      digits /= vocab_;
      state = drafting_.next_state(state, static_cast<TokenId>(text / digits));
    }
    return state;
  }
  void add_continuations(const Real& weight, int length, std::size_t text, std::vector<Real>& longer) const {
    const auto row = target_.at_state(state_after(length, text));
    for (int x = 0; x < vocab_; ++x) longer[text * vocab_ + x] += weight * row[x];
  }

  void run_from_start() {
    emitted_.clear();
    drafting_.view().memory.clear();
    state_ = drafting_.start_state();
    for (int round = 0; round < options_.rounds; ++round) {
      uniforms_.begin_step(round);
      drafting_.grow(state_, uniforms_);
      if (round + 1 == options_.rounds) uniforms_.mark();
      emitted_before_ = emitted_.size();
      judge();
      if (round == 0) first_pass_tokens_ = emitted_.size();
    }
  }

  void judge() {
    Draft<Real>& draft = drafting_.draft();
    NodeRows<Real> rows(target_, drafting_.states());
    policy_.judge(draft, rows, uniforms_, verdict_);
    check_verdict(draft.tree, verdict_, vocab_);
    NodeId node = TokenTree::kRoot;
    for (NodeId child : verdict_.accepted) {
      emitted_.push_back(draft.tree.token(child));
      node = child;
    }
    emitted_.push_back(verdict_.next);
    state_ = drafting_.next_state(drafting_.states()[node], verdict_.next);
    tree_.observe(drafting_.view(), static_cast<int>(verdict_.accepted.size()));
  }

  void count() {
    const int k = std::min<int>(length_, static_cast<int>(emitted_.size()));
    std::size_t text = 0;
    for (int i = 0; i < k; ++i) text = text * vocab_ + emitted_[i];
    by_length_[k][text] += uniforms_.weight();
    const auto tokens = static_cast<int>(options_.rounds == 1 ? emitted_.size() : first_pass_tokens_);
    expected_tokens_ += uniforms_.weight() * Real(tokens);
    total_weight_ += uniforms_.weight();
    ++outcomes_;
  }

  const AcceptancePolicy& policy_;
  const TreePolicy& tree_;
  const ProofOptions& options_;
  MarkovRows<Real> target_;
  ToyDrafting<Real> drafting_;
  int vocab_;
  int length_;

  Enumerator<Real> uniforms_;
  Verdict verdict_;
  int state_ = 0;
  std::vector<TokenId> emitted_;
  std::size_t emitted_before_ = 0;
  std::size_t first_pass_tokens_ = 0;

  std::vector<std::vector<Real>> by_length_;  // [k]: law of texts of k tokens that were emitted and not yet completed
  Real expected_tokens_ = Real(0);
  Real total_weight_ = Real(0);
  std::int64_t outcomes_ = 0;
  std::int64_t visited_ = 0;
};

}  // namespace specmoe::detail
