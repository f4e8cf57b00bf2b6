#pragma once

#include "core/engine.h"
#include "tests/support/toy_model.h"

namespace specmoe::test {

/// A toy target of which the joint law of two tokens is compared, by chi-square over its 25 pairs.
inline const ToyOptions kTwoTokenTarget{.vocab = 5, .order = 2, .sharpness = 1.0};
constexpr int kTwoTokenTexts = 20'000;
constexpr double kTwoTokenBound = 51.18;  // 24 degrees of freedom, p = 0.001

struct TwoTokens {
  double statistic = 0;
  int accepted = 0;  // draft tokens in the first steps of all texts
};

/// Samples the target's texts through an engine.
inline TwoTokens two_tokens(Engine& engine) {
  const int vocab = kTwoTokenTarget.vocab;
  std::vector<Request> requests(kTwoTokenTexts);
  for (int i = 0; i < kTwoTokenTexts; ++i) {
    requests[i].prompt = {1, 2};
    requests[i].max_new_tokens = 4;  // drafts reach beyond what is compared
    requests[i].sampling = {.temperature = 1.0, .seed = 3, .sequence = static_cast<std::uint64_t>(i)};
  }
  TwoTokens found;
  std::vector<double> counted(static_cast<std::size_t>(vocab) * vocab);
  for (const RequestRecord& record : engine.generate(requests, 32)) {
    ++counted[record.tokens[0] * vocab + record.tokens[1]];
    found.accepted += record.steps[0].accepted;
  }
  const std::vector<double> first = toy_probs(kTwoTokenTarget, std::vector<TokenId>{1, 2});
  for (TokenId x = 0; x < vocab; ++x) {
    const std::vector<double> second = toy_probs(kTwoTokenTarget, std::vector<TokenId>{1, 2, x});
    for (TokenId y = 0; y < vocab; ++y) {
      const double expected = kTwoTokenTexts * first[x] * second[y];
      const double off = counted[x * vocab + y] - expected;
      found.statistic += off * off / expected;
    }
  }
  return found;
}

}  // namespace specmoe::test
