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

std::span<const float> checked_logits(const ForwardResult& result, int row, NodeId node) {
  SPECMOE_CHECK(result.want_logits, "the pass was asked for argmaxes alone, so node ", node, " has no logits");
  checked_argmax(result, row, node);
  return result.logits_row(row);
}

void logits_to_probs(std::span<const float> logits, NodeId node, const SamplingParams& sampling, std::span<float> probs,
                     std::vector<std::int32_t>& scratch) {
  static const auto sampling_probs = kernels::sampling_probs.up_to(kernels::default_cpu_backend());
  if (sampling.cuts()) scratch.resize(logits.size());
  sampling_probs(logits.data(), static_cast<std::int64_t>(logits.size()), sampling.rule(), probs.data(),
                 scratch.data());
  SPECMOE_CHECK(!std::isnan(probs[0]), "logits of node ", node, " hold NaN; check the checkpoint's weights");
}

std::vector<float> prefill(LanguageModel& model, KVCache& cache, std::span<const TokenId> tokens,
                           const std::vector<int>& taps, std::span<const float> features,
                           const std::function<void()>& poll) {
  constexpr std::size_t kPassRows = kPrefillRows;
  ForwardResult result;
  result.want_experts = false;
  result.taps = taps;
  std::vector<float> tapped;
  std::vector<std::int32_t> chain(std::min(tokens.size(), kPassRows));
  for (std::size_t begin = 0; begin < tokens.size(); begin += kPassRows) {
    if (poll) poll();
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

void LogitRows::reset(const ForwardResult& result, int first_row, const TokenTree& tree, const SamplingParams& sampling,
                      LogitChanges& changes) {
  result_ = &result;
  first_row_ = first_row;
  tree_ = &tree;
  changes_ = &changes;
  sampling_ = sampling;
  made_.reset(result.vocab);
  index_of_.assign(tree.size(), -1);
}

ProbRow<float> LogitRows::row(int n) {
  if (sampling_.greedy() && !changes_->any()) {
    return ProbRow<float>::point(checked_argmax(*result_, first_row_ + n, n), result_->vocab);
  }
  if (index_of_[n] < 0) index_of_[n] = make_row(n);
  return made_.row(index_of_[n]);
}

int LogitRows::make_row(NodeId n) {
  static const auto row_argmax = kernels::row_argmax.up_to(kernels::default_cpu_backend());
  const std::span<const float> logits = changes_->applied(checked_logits(*result_, first_row_ + n, n), *tree_, n);
  SPECMOE_CHECK(!logits.empty(), "the logits processor forbids every token after node ", n,
                "; after each text it must leave one or more");
  if (sampling_.greedy()) {
    TokenId best = 0;
    row_argmax(kernels::contiguous(logits.data(), 1, vocab()), &best);
    return made_.add_point(best);
  }
  const int index = made_.add_dense();
  logits_to_probs(logits, n, sampling_, made_.dense(index), scratch_);
  return index;
}

}  // namespace specmoe
