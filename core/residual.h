#pragma once

#include <array>

#include "core/decide.h"
#include "kernels/host_device.h"

namespace specmoe {

/// The children of one node may change the row they are drawn from this often.
inline constexpr int kMaxResidualSteps = 16;

template <class Real>
[[noreturn]] void refuse_steps(const ProbRow<Real>&) {
  fail("children of one node: expected at most ", kMaxResidualSteps,
       " changes of the row they were drawn from; order them by row");
}

/// max(x, 0)
template <class W>
SPECMOE_HD W positive(const W& x) {
  return x < W(0) ? W(0) : x;
}

/// What is left of the target's row at a node while its children are rejected one by one.
///
/// The residual is kept as max(p - c q, 0) / mass with the two scalars c and mass, on the tokens that are not taken, so
/// no vocabulary row is stored. Children drawn from different rows chain such steps.
///
/// Draft  as specmoe::Draft
template <class Draft>
class Residual {
 public:
  using Row = typename Draft::Row;
  using W = typename Row::Scalar;

  /// without_replacement  the tokens of rejected children are out of the draft row of those after them, and out of the
  ///                      residual; otherwise this holds only for children chosen without a row
  SPECMOE_HD Residual(Draft& draft, NodeId node, Row target, bool without_replacement)
      : draft_(draft),
        target_(target),
        without_replacement_(without_replacement),
        taken_(Taken::children_before(draft, node, draft.tree.first_child(node), !without_replacement)) {}

  /// r(x) / q(x) of a child's token, q being the law it was drawn by after its earlier siblings.
  struct Ratio {
    W residual;
    W drawn;
  };
  SPECMOE_HD Ratio ratio(NodeId child) const {
    const TokenId x = draft_.tree.token(child);
    const Row q = draft_.row(child);
    if (!(q[x] > W(0))) refuse_token(q, child, x);
    return {at(x) * left(q, child), mass_ * q[x]};
  }

  /// Makes it norm((weight r - q)+), for a child that was rejected with acceptance weight `weight`; returns the mass of
  /// that difference. When it is 0 (p = q but for rounding) nothing is left to draw from, and the residual stays.
  SPECMOE_HD W reject(NodeId child, const W& weight = W(1)) {
    if (!(weight > W(0))) return W(0);
    const NodeId end = taken_.end;
    const int steps = step_count_;
    const W last_c = steps > 0 ? steps_[steps - 1].c : W(0);
    const Row q = draft_.row(child);
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
  template <class Uniform>
  SPECMOE_HD TokenId draw(const Uniform& uniform) const {
    if (target_.is_point()) return target_.point_token();
    const TokenId x = with_term([&](const auto& term) {
      const bool whole = step_count_ == 0 && taken_.empty();
      const W sum = whole ? sum_terms<W, Team>(target_.vocab(), term) : mass_;
      return draw_token<Team>(target_.vocab(), term, sum, taken_, uniform);
    });
    return x >= 0 ? x : draw_from_row(target_, Taken{}, uniform);
  }

 private:
  using Team = typename Row::Team;

  struct Step {
    std::int32_t row = -1;
    Row q;
    W c = W(0);
  };

  SPECMOE_HD W at(TokenId x) const { return taken_.contains(x) ? W(0) : unmasked(x); }
  SPECMOE_HD W unmasked(TokenId x) const {
    W value = target_[x];
    for (int i = 0; i < step_count_; ++i) value = positive(W(value - steps_[i].c * steps_[i].q[x]));
    return value;
  }
  SPECMOE_HD W total() const {
    if (target_.is_point()) return at(target_.point_token());
    return with_term([&](const auto& term) { return sum_terms<W, Team>(target_.vocab(), term, taken_); });
  }
  /// Calls body with the cheapest function that gives unmasked(x).
  template <class Body>
  SPECMOE_HD auto with_term(Body body) const {
    const auto* p = target_.dense().data();
    if (step_count_ == 0) return body([p](TokenId x) { return W(p[x]); });
    if (step_count_ == 1 && !steps_[0].q.is_point()) {
      return body([p, q = steps_[0].q.dense().data(), c = steps_[0].c](TokenId x) {
        return positive(W(W(p[x]) - c * W(q[x])));
      });
    }
    return body([this](TokenId x) { return unmasked(x); });
  }
  /// Mass that the child's row had left when the child was drawn from it.
  SPECMOE_HD W left(const Row& q, NodeId child) const {
    if (!without_replacement_ || draft_.row_of[child] < 0) return W(1);
    Taken earlier = taken_;
    earlier.end = child;
    return mass_outside(q, earlier);
  }
  SPECMOE_HD void push_step(std::int32_t row, const Row& q, const W& c) {
    if (step_count_ > 0 && steps_[step_count_ - 1].row == row) {
      steps_[step_count_ - 1].c += c;
      return;
    }
    if (step_count_ == kMaxResidualSteps) return refuse_steps(q);
    steps_[step_count_++] = {row, q, c};
  }

  Draft& draft_;
  Row target_;
  bool without_replacement_;
  Taken taken_;
  W mass_ = W(1);
  int step_count_ = 0;
  std::array<Step, kMaxResidualSteps> steps_;
};

}  // namespace specmoe
