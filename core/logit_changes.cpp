#include "core/logit_changes.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace specmoe {

void LogitChanges::reset(int vocab, int text, std::span<const TokenId> prompt, const SamplingParams& sampling,
                         std::shared_ptr<LogitsProcessor> processor) {
  sampling_ = sampling;
  processor_ = std::move(processor);
  if (any()) changed_.reserve(vocab);
  if (sampling_.penalises()) counts_.reset(vocab, prompt);
  if (processor_ == nullptr) return;
  text_.reserve(text);
  text_.assign(prompt.begin(), prompt.end());
  prompt_ = prompt.size();
}

void LogitChanges::add(TokenId token) {
  if (sampling_.penalises()) counts_.add(token);
  if (processor_ != nullptr) text_.push_back(token);
}

std::span<const float> LogitChanges::applied(std::span<const float> logits, const TokenTree& tree, NodeId node) {
  if (!any()) return logits;
  changed_.assign(logits.begin(), logits.end());
  if (sampling_.penalises()) counts_.penalise(changed_, tree, node, sampling_);
  if (processor_ != nullptr) process(tree, node);
  return changed_;
}

void LogitChanges::process(const TokenTree& tree, NodeId node) {
  const std::size_t before = text_.size();
  for (NodeId n = node; n != TokenTree::kRoot; n = tree.parent(n)) text_.push_back(tree.token(n));
  std::reverse(text_.begin() + static_cast<std::ptrdiff_t>(before), text_.end());
  const std::span<const TokenId> text = text_;
  processor_->process(text.first(prompt_), text.subspan(prompt_), changed_);
  text_.resize(before);
  SPECMOE_CHECK(std::ranges::all_of(changed_, [](float logit) { return logit < INFINITY; }),
                "the logits processor left NaN or infinity at node ", node,
                "; what it may leave are finite logits and -infinity");
  if (std::ranges::none_of(changed_, [](float logit) { return std::isfinite(logit); })) changed_.clear();
}

}  // namespace specmoe
