#include "core/markov.h"

#include <cmath>
#include <numeric>

#include "kernels/check.h"

namespace specmoe {

int MarkovModel::contexts() const {
  int count = 1;
  for (int i = 0; i < order; ++i) count *= vocab;
  return count;
}

void MarkovModel::validate(const std::string& what) const {
  SPECMOE_CHECK(vocab >= 1, what, ": expected a vocabulary of 1 token or more, got ", vocab);
  SPECMOE_CHECK(order >= 1 && order <= 4, what, ": expected an order of 1 to 4, got ", order);
  SPECMOE_CHECK(static_cast<int>(weights.size()) == contexts() * vocab, what, ": expected [", contexts(), ", ", vocab,
                "] weights, got ", weights.size(), " in all");
  for (int row = 0; row < contexts(); ++row) {
    double sum = 0.0;
    for (int x = 0; x < vocab; ++x) {
      const double value = weights[row * vocab + x];
      SPECMOE_CHECK(value >= 0.0 && value < 1e300, what, ": row ", row, ": expected weights of 0 or more, got ", value,
                    " for token ", x);
      sum += value;
    }
    SPECMOE_CHECK(sum > 0.0, what, ": row ", row, ": expected a positive weight, got zeros alone");
  }
}

MarkovModel markov(const std::vector<std::vector<double>>& rows, int order) {
  MarkovModel model;
  model.order = order;
  model.vocab = rows.empty() ? 0 : static_cast<int>(rows[0].size());
  for (const auto& row : rows) {
    SPECMOE_CHECK(static_cast<int>(row.size()) == model.vocab, "Markov model: expected rows of ", model.vocab,
                  " weights, got one of ", row.size());
    model.weights.insert(model.weights.end(), row.begin(), row.end());
  }
  return model;
}

MarkovModel markov_from_probabilities(const std::vector<std::vector<double>>& rows, const std::string& what) {
  for (std::size_t row = 0; row < rows.size(); ++row) {
    SPECMOE_CHECK(rows[row].size() == rows.size(), what, ": expected a square matrix, got ", rows.size(), " rows and ",
                  rows[row].size(), " values in row ", row);
  }
  MarkovModel model = markov(rows);
  model.validate(what);
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const double sum = std::accumulate(rows[row].begin(), rows[row].end(), 0.0);
    SPECMOE_CHECK(std::abs(sum - 1.0) <= 1e-6, what, ": row ", row, ": expected probabilities that sum to 1, got ", sum,
                  "; divide the row by its sum");
  }
  return model;
}

}  // namespace specmoe
