#include "experiments/model_agreement.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace specmoe::cli {
namespace {

/// A model with a text of its own.
class Reader {
 public:
  Reader(LanguageModel& model, int capacity) : model_(model), cache_(model.new_cache(capacity)) {
    result_.want_experts = false;
  }

  /// Appends tokens; afterwards row() is that of the last one.
  void read(std::span<const TokenId> tokens) {
    std::vector<std::int32_t> parents(tokens.size());
    std::iota(parents.begin(), parents.end(), -1);
    const RowBlock block{cache_.get(), tokens, parents, LogitsWanted::kLast};
    model_.forward({&block, 1}, result_);
    std::iota(parents.begin(), parents.end(), 0);
    cache_->keep(parents);
  }
  std::span<const float> row() const { return result_.logits_row(0); }
  TokenId likeliest() const { return result_.argmax[0]; }

 private:
  LanguageModel& model_;
  std::unique_ptr<KVCache> cache_;
  ForwardResult result_;
};

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

void compare_rows(const Reader& reference, const Reader& other, Agreement& sum) {
  const std::span<const float> target = reference.row();
  const std::span<const float> row = other.row();
  const double target_norm = log_sum_exp(target);
  const double norm = log_sum_exp(row);
  for (std::size_t v = 0; v < target.size(); ++v) {
    const double log_target = target[v] - target_norm;
    sum.divergence += std::exp(log_target) * (log_target - (row[v] - norm));
    sum.largest_distance = std::max(sum.largest_distance, std::abs(double{row[v]} - target[v]));
  }
  sum.same += reference.likeliest() == other.likeliest() ? 1 : 0;
  ++sum.tokens;
}

}  // namespace

Agreement compare_models(LanguageModel& reference, LanguageModel& other, std::span<const TokenId> prompt,
                         int most_tokens) {
  const int capacity = static_cast<int>(prompt.size()) + most_tokens;
  Reader target(reference, capacity);
  Reader read(other, capacity);
  for (std::size_t first = 0; first < prompt.size(); first += kAgreementRows) {
    const auto part = prompt.subspan(first, std::min<std::size_t>(kAgreementRows, prompt.size() - first));
    target.read(part);
    read.read(part);
  }
  const std::vector<TokenId>& stops = reference.info().stop_tokens;
  Agreement sum;
  for (;;) {
    compare_rows(target, read, sum);
    const TokenId next = target.likeliest();
    if (sum.tokens >= most_tokens || std::find(stops.begin(), stops.end(), next) != stops.end()) return sum;
    target.read({&next, 1});
    read.read({&next, 1});
  }
}

void add(Agreement& sum, const Agreement& more) {
  sum.tokens += more.tokens;
  sum.same += more.same;
  sum.divergence += more.divergence;
  sum.largest_distance = std::max(sum.largest_distance, more.largest_distance);
}

}  // namespace specmoe::cli
