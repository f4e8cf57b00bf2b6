#include "core/logit_rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/sampling.h"

namespace specmoe {

TokenId checked_argmax(const ForwardResult& result, int row, NodeId node) {
  const TokenId best = result.argmax[row];
  SPECMOE_CHECK(best >= 0, "logits of node ", node, " are NaN; check the checkpoint's weights");
  return best;
}

void logits_to_probs(const ForwardResult& result, int row, NodeId node, const SamplingParams& sampling,
                     std::span<float> probs, std::vector<std::int32_t>& scratch) {
  static const auto sampling_probs = kernels::sampling_probs.up_to(kernels::default_cpu_backend());
  SPECMOE_CHECK(result.want_logits, "the pass was asked for argmaxes alone, so node ", node, " has no probabilities");
  checked_argmax(result, row, node);
  if (sampling.cuts()) scratch.resize(result.vocab);
  sampling_probs(result.logits_row(row).data(), result.vocab, sampling.rule(), probs.data(), scratch.data());
  SPECMOE_CHECK(!std::isnan(probs[0]), "logits of node ", node, " hold NaN; check the checkpoint's weights");
}

std::vector<float> prefill(LanguageModel& model, KVCache& cache, std::span<const TokenId> tokens,
                           const std::vector<int>& taps, std::span<const float> features) {
  constexpr std::size_t kPassRows = kPrefillRows;
  ForwardResult result;
  result.want_experts = false;
  result.taps = taps;
  std::vector<float> tapped;
  std::vector<std::int32_t> chain(std::min(tokens.size(), kPassRows));
  for (std::size_t begin = 0; begin < tokens.size(); begin += kPassRows) {
    const std::size_t rows = std::min(kPassRows, tokens.size() - begin);
    chain.resize(rows);
    std::iota(chain.begin(), chain.end(), -1);
    const std::size_t width = features.size() / tokens.size();
    const RowBlock block{&cache, tokens.subspan(begin, rows), chain, LogitsWanted::kNone,
                         features.subspan(begin * width, rows * width)};
    model.forward({&block, 1}, result);
    tapped.insert(tapped.end(), result.tapped.begin(), result.tapped.end());
    std::iota(chain.begin(), chain.end(), 0);
    cache.keep(chain);
  }
  return tapped;
}

void LogitRows::reset(const ForwardResult& result, int first_row, int nodes, const SamplingParams& sampling) {
  result_ = &result;
  first_row_ = first_row;
  sampling_ = sampling;
  made_.reset(result.vocab);
  index_of_.assign(nodes, -1);
}

ProbRow<float> LogitRows::row(int n) {
  if (sampling_.greedy()) return ProbRow<float>::point(checked_argmax(*result_, first_row_ + n, n), result_->vocab);
  if (index_of_[n] < 0) {
    index_of_[n] = made_.add_dense();
    logits_to_probs(*result_, first_row_ + n, n, sampling_, made_.dense(index_of_[n]), scratch_);
  }
  return made_.row(index_of_[n]);
}

}  // namespace specmoe
