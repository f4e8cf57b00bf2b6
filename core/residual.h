#pragma once

#include <algorithm>
#include <array>

#include "core/decide.h"

namespace specmoe {

/// What is left of the target's row at a node while its children are rejected one by one.
///
/// The residual is kept as max(p - c q, 0) / mass with the two scalars c and mass, on the tokens that are not taken, so
/// no vocabulary row is stored. Children drawn from different rows chain such steps.
template <class Real>
class Residual {
 public:
  using W = Wide<Real>;

  /// without_replacement  the tokens of rejected children are out of the draft row of those after them, and out of the
  ///                      residual; otherwise this holds only for children chosen without a row
  Residual(Draft<Real>& draft, NodeId node, ProbRow<Real> target, bool without_replacement)
      : draft_(draft),
        target_(target),
        without_replacement_(without_replacement),
        taken_(Taken::children_before(draft, node, draft.tree.first_child(node), !without_replacement)) {}

  /// r(x) / q(x) of a child's token, q being the law it was drawn by after its earlier siblings.
  struct Ratio {
    W residual;
    W drawn;
  };
  Ratio ratio(NodeId child) const {
    const TokenId x = draft_.tree.token(child);
    const ProbRow<Real> q = draft_.row(child);
    SPECMOE_CHECK(q[x] > W(0), "draft row of node ", child, ": gives its own token ", x, " probability 0");
    return {at(x) * left(q, child), mass_ * q[x]};
  }

  /// Makes it norm((weight r - q)+), for a child that was rejected with acceptance weight `weight`; returns the mass of
  /// that difference. When it is 0 (p = q but for rounding) nothing is left to draw from, and the residual stays.
  W reject(NodeId child, const W& weight = W(1)) {
    if (!(weight > W(0))) return W(0);
    const NodeId end = taken_.end;
    const int steps = step_count_;
    const W last_c = steps > 0 ? steps_[steps - 1].c : W(0);
    const ProbRow<Real> q = draft_.row(child);
    const W had_left = left(q, child);
    W rest(0);
    if (draft_.row_of[child] < 0 || !(had_left > W(0))) {
      const W own = at(draft_.tree.token(child));
      taken_.end = draft_.tree.next_sibling(child);
      rest = mass_ - own;
      // A small difference would be mostly rounding: sum what is left instead.
      if (!(rest > mass_ * W(0.125))) rest = total();
    } else {
      const W c = mass_ / (weight * had_left);
      taken_.end = draft_.tree.next_sibling(child);
      push_step(draft_.row_of[child], q, c);
      rest = total();
      if (!(rest > W(0))) {
        step_count_ = steps;
        if (steps > 0) steps_[steps - 1].c = last_c;
      }
    }
    if (!(rest > W(0))) {
      taken_.end = end;
      return W(0);
    }
    const W difference = weight * rest / mass_;
    mass_ = rest;
    return difference;
  }

  /// A token of the residual; of the target itself where rounding left nothing.
  TokenId draw(const Uniform<W>& uniform) const {
    if (target_.is_point()) return target_.point_token();
    const TokenId x = with_term([&](const auto& term) {
      const bool whole = step_count_ == 0 && taken_.empty();
      const W sum = whole ? sum_terms<W>(target_.vocab(), term) : mass_;
      return draw_token(target_.vocab(), term, sum, taken_, uniform);
    });
    return x >= 0 ? x : draw_from_row(target_, Taken{}, uniform);
  }

 private:
  struct Step {
    std::int32_t row = -1;
    ProbRow<Real> q;
    W c = W(0);
  };
  static constexpr int kMaxSteps = 16;

  W at(TokenId x) const { return taken_.contains(x) ? W(0) : unmasked(x); }
  W unmasked(TokenId x) const {
    W value = target_[x];
    for (int i = 0; i < step_count_; ++i) value = std::max(W(value - steps_[i].c * steps_[i].q[x]), W(0));
    return value;
  }
  W total() const {
    if (target_.is_point()) return at(target_.point_token());
    return with_term([&](const auto& term) { return sum_terms<W>(target_.vocab(), term, taken_); });
  }
  /// Calls body with the cheapest function that gives unmasked(x).
  template <class Body>
  auto with_term(Body body) const {
    const Real* p = target_.dense().data();
    if (step_count_ == 0) return body([p](TokenId x) { return W(p[x]); });
    if (step_count_ == 1 && !steps_[0].q.is_point()) {
      return body([p, q = steps_[0].q.dense().data(), c = steps_[0].c](TokenId x) {
        return std::max(W(W(p[x]) - c * W(q[x])), W(0));
      });
    }
    return body([this](TokenId x) { return unmasked(x); });
  }
  /// Mass that the child's row had left when the child was drawn from it.
  W left(const ProbRow<Real>& q, NodeId child) const {
    if (!without_replacement_ || draft_.row_of[child] < 0) return W(1);
    Taken earlier = taken_;
    earlier.end = child;
    return mass_outside(q, earlier);
  }
  void push_step(std::int32_t row, const ProbRow<Real>& q, const W& c) {
    if (step_count_ > 0 && steps_[step_count_ - 1].row == row) {
      steps_[step_count_ - 1].c += c;
      return;
    }
    SPECMOE_CHECK(step_count_ < kMaxSteps, "children of one node: expected at most ", kMaxSteps,
                  " changes of the row they were drawn from; order them by row");
    steps_[step_count_++] = {row, q, c};
  }

  Draft<Real>& draft_;
  ProbRow<Real> target_;
  bool without_replacement_;
  Taken taken_;
  W mass_ = W(1);
  int step_count_ = 0;
  std::array<Step, kMaxSteps> steps_;
};

}  // namespace specmoe
