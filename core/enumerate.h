#pragma once

#include <cstdint>
#include <vector>

#include "core/rational.h"
#include "core/uniforms.h"

namespace specmoe {

/// Uniforms that visit every outcome. An address is an interval, [0, 1) at first; a threshold inside it splits it, and
/// the branch taken narrows it and multiplies the weight. All branches are visited depth first by replaying recorded
/// answers, so a rule that asks one uniform twice meets an interval that is narrowed already.
///
///     Enumerator<double> uniforms;
///     do {
///       ...  // code that decides with uniforms; uniforms.weight() is the probability of this run
///     } while (uniforms.next() != Enumerator<double>::Again::kNever);
template <class Scalar>
class Enumerator final : public UniformSource<Scalar>, public UniformOracle<Scalar> {
 public:
  struct Interval {
    std::uint64_t step = 0;
    UniformAddress address;
    Scalar lo = Scalar(0);
    Scalar hi = Scalar(1);
  };
  /// From where the code has to be run again for the next outcome.
  enum class Again : std::uint8_t { kNever, kFromStart, kFromMark };

  Uniform<Scalar> at(UniformAddress address) override { return Uniform<Scalar>(this, find(address)); }

  bool less(std::uint64_t id, const Scalar& threshold) override {
    Interval& u = state_.intervals[id];
    if (threshold >= u.hi - slack()) return true;
    if (threshold <= u.lo + slack()) return false;
    if (state_.asked == choices_.size()) choices_.push_back(true);
    const bool below = choices_[state_.asked++];
    const Scalar share = (threshold - u.lo) / (u.hi - u.lo);
    state_.weight *= below ? share : Scalar(1) - share;
    (below ? u.hi : u.lo) = threshold;
    return below;
  }

  /// Whatever is asked from now on belongs to this step: addresses of two steps never meet.
  void begin_step(std::uint64_t step) { state_.step = step; }
  /// Outcomes that differ only after this point are visited without running what came before it again.
  void mark() {
    marked_ = state_;
    has_mark_ = true;
  }

  /// Moves to the next outcome.
  Again next() {
    while (!choices_.empty() && !choices_.back()) choices_.pop_back();
    if (choices_.empty()) return Again::kNever;
    choices_.back() = false;
    if (has_mark_ && choices_.size() > marked_.asked) {
      state_ = marked_;
      return Again::kFromMark;
    }
    has_mark_ = false;
    state_.step = 0;
    state_.asked = 0;
    state_.weight = Scalar(1);
    state_.intervals.clear();
    return Again::kFromStart;
  }

  const Scalar& weight() const { return state_.weight; }
  /// The uniforms asked about in this run and where they were found to lie.
  const std::vector<Interval>& intervals() const { return state_.intervals; }

 private:
  struct State {
    std::uint64_t step = 0;
    std::size_t asked = 0;
    Scalar weight = Scalar(1);
    std::vector<Interval> intervals;
  };

  /// Rounding of doubles opens no branch of its own.
  static Scalar slack() { return Scalar(1e-14); }

  std::uint64_t find(const UniformAddress& address) {
    std::vector<Interval>& all = state_.intervals;
    for (std::size_t id = 0; id < all.size(); ++id) {
      const UniformAddress& known = all[id].address;
      if (all[id].step == state_.step && known.node == address.node && known.purpose == address.purpose &&
          known.slot == address.slot) {
        return id;
      }
    }
    all.push_back({state_.step, address, Scalar(0), Scalar(1)});
    return all.size() - 1;
  }

  State state_;
  State marked_;
  bool has_mark_ = false;
  std::vector<char> choices_;
};

template <>
inline Rational Enumerator<Rational>::slack() {
  return Rational(0);
}

}  // namespace specmoe
