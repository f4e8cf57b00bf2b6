#pragma once

#include <span>

#include "core/prover.h"

namespace specmoe {

/// What no acceptance policy can exceed, whatever it knows, for one way of drafting.
///
/// first_token      greatest probability that the first emitted token is a drafted one: optimal transport between the
///                  target's row and the drafted sets, which is what optimal multi-draft acceptance attains
/// expected_tokens  bound on tokens per target pass: 1 + the sum over depths of the same transport for whole texts
///                  (full information: the policy may look at all rows of the tree at once)
struct OracleBounds {
  double first_token = 0.0;
  double expected_tokens = 0.0;
};

/// Enumerates the real drafting code on the models and solves the transports as maximum flows.
OracleBounds oracle_bounds(DraftLaw law, const TreePolicy& tree, const ProofModels& models);

/// Optimal acceptance with k independent draws of q at one node, any vocabulary: 1 + min over H of p(H) - q(H)^k, where
/// only prefixes of the tokens sorted by p / q need be tried.
///
/// source  Hu et al. 2025, arXiv:2502.18779 (dual form)
double optimal_iid_acceptance(std::span<const double> target_probs, std::span<const double> draft_probs, int k);

}  // namespace specmoe
