#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "core/draft.h"

namespace specmoe::cli {

/// One policy under one law on one tree, over the built-in models.
///
/// outcome          lossless, biased, or refused: the policy is not defined there
/// tvd              largest distance over the models
/// expected_tokens  per target pass on the golden toy
/// bound            on expected_tokens, whatever the policy (core/oracle_bounds.h)
struct MatrixCell {
  enum class Outcome { kLossless, kBiased, kRefused };
  std::string policy;
  DraftLaw law = DraftLaw::kIid;
  std::string tree;
  bool declared = false;
  Outcome outcome = Outcome::kRefused;
  double tvd = 0.0;
  double expected_tokens = 0.0;
  double bound = 0.0;

  /// Whether it is what the policy's label promises, within the bound.
  bool as_labelled() const;
};

/// One known wrong rule and whether the prover caught it.
struct ZooCell {
  std::string name;
  std::string seen_in;
  double tvd = 0.0;
  bool flagged = false;
};

struct ProofMatrix {
  std::vector<MatrixCell> cells;
  std::vector<ZooCell> zoo;
  bool as_labelled() const;
};

/// Proves every registered policy under every law on small trees; progress goes to `progress`.
ProofMatrix prove_matrix(std::ostream& progress);
/// One table per tree: policies down, laws across.
void print_matrix(const ProofMatrix& matrix, std::ostream& out);
std::string matrix_json(const ProofMatrix& matrix);

}  // namespace specmoe::cli
