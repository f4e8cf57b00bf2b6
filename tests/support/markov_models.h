#pragma once

#include <string>
#include <vector>

#include "core/prover.h"

namespace specmoe::testing {

/// More toys than the built-in ones: four tokens, mixed orders, one-sided support, equal models.
inline const std::vector<ProofModels>& more_proof_models() {
  static const std::vector<ProofModels> models = {
      {"V=4",
       markov({{4, 3, 2, 1}, {1, 0, 5, 4}, {2, 2, 3, 3}, {0, 0, 9, 1}}),
       {markov({{1, 2, 3, 4}, {3, 3, 3, 1}, {0, 5, 5, 0}, {1, 1, 1, 7}}),
        markov({{4, 1, 1, 4}, {2, 2, 2, 4}, {7, 1, 1, 1}, {2, 3, 4, 1}})},
       {2}},
      {"target of order 2, draft of order 1",
       markov({{3, 1}, {1, 4}, {2, 3}, {1, 0}}, 2),
       {markov({{2, 1}, {1, 3}}), markov({{1, 1}, {5, 1}})},
       {1, 0}},
      {"no token in common",
       markov({{1, 0, 1}, {1, 0, 2}, {3, 0, 1}}),
       {markov({{0, 1, 0}, {0, 1, 0}, {0, 1, 0}}), markov({{0, 1, 0}, {0, 1, 0}, {0, 1, 0}})},
       {0}},
      {"sure target", markov({{8, 2}, {3, 7}}), {markov({{6, 4}, {4, 6}}), markov({{7, 3}, {1, 9}})}, {0}},
      {"draft equals target",
       markov({{5, 3, 2}, {1, 6, 3}, {4, 4, 2}}),
       {markov({{5, 3, 2}, {1, 6, 3}, {4, 4, 2}}), markov({{5, 3, 2}, {1, 6, 3}, {4, 4, 2}})},
       {1}},
  };
  return models;
}

inline std::vector<ProofModels> all_proof_models() {
  std::vector<ProofModels> all = builtin_proof_models();
  all.insert(all.end(), more_proof_models().begin(), more_proof_models().end());
  return all;
}

inline constexpr DraftLaw kAllLaws[] = {DraftLaw::kDeterministic, DraftLaw::kIid, DraftLaw::kWithoutReplacement,
                                        DraftLaw::kTopPlusSampled, DraftLaw::kMultiDrafter};

}  // namespace specmoe::testing
