#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/prob_rows.h"
#include "core/types.h"

namespace specmoe {

/// A tiny language model whose next token depends on the last `order` tokens: what proofs run on.
///
/// weights  [V^order, V] rows by context, the most recent token being the last digit base V; each row is used divided
///          by its sum, so that {5, 3, 2} means .5, .3, .2 exactly
struct MarkovModel {
  int vocab = 0;
  int order = 1;
  std::vector<double> weights;

  int contexts() const;
  /// Throws Error naming row and value: wrong size, NaN, negative, a row of zeros.
  void validate(const std::string& what) const;
};

/// Order 1 from rows, one per last token.
MarkovModel markov(const std::vector<std::vector<double>>& rows, int order = 1);

/// A user's model of order 1 from rows of probabilities [V, V], one per last token. Throws Error naming `what`, row and
/// value when a row is no distribution; sums may miss 1 by 1e-6, what rows computed in float32 miss it by.
MarkovModel markov_from_probabilities(const std::vector<std::vector<double>>& rows, const std::string& what);

/// The rows of a MarkovModel, normalised in one scalar type.
template <class Real>
class MarkovRows {
 public:
  explicit MarkovRows(const MarkovModel& model)
      : vocab_(model.vocab), contexts_(model.contexts()), values_(model.weights.size()) {
    const int vocab = model.vocab;
    for (int row = 0; row < contexts_; ++row) {
      Real sum(0);
      for (int x = 0; x < vocab; ++x) sum += Real(model.weights[row * vocab + x]);
      for (int x = 0; x < vocab; ++x) values_[row * vocab + x] = Real(model.weights[row * vocab + x]) / sum;
    }
  }
  int vocab() const { return vocab_; }
  /// The row that follows a text whose last tokens, at least `order` of them, are the digits of `state` base V.
  std::span<const Real> at_state(int state) const {
    return std::span<const Real>(values_).subspan(static_cast<std::size_t>(state % contexts_) * vocab_, vocab_);
  }

 private:
  int vocab_;
  int contexts_;
  std::vector<Real> values_;
};

}  // namespace specmoe
