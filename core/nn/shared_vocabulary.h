#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/nn/tokenizer.h"
#include "core/types.h"

namespace specmoe::nn {

/// A model and the tokens that its rows stand for. Borrows both.
struct TokenizedModel {
  const Tokenizer& tokenizer;
  const ModelInfo& model;
};

/// One token under the ids of both.
struct SharedToken {
  TokenId target = 0;
  TokenId draft = 0;

  bool operator==(const SharedToken&) const = default;
};

/// What a target's vocabulary and a drafter's have in common, and how the drafter reads the rest of the target's.
///
/// Ordinary tokens are the same when their bytes are. Of several with the same bytes, the one with the shortest
/// spelling counts, then the lowest id: a tokenizer writes "A", not "<0x41>". Special tokens are the same when they are
/// spelled alike, or else when both begin a text (what the tokenizer's template puts there) or end one (the
/// checkpoint's stop tokens). Rows of a model without a token are nobody's.
///
/// A token that is not shared is read as the draft tokens that spell its bytes, always taking the longest that fits; a
/// begin token, where the drafter has none, as its end token, behind which texts begin as well. A byte that no draft
/// token has, and a row without a token, is read as the drafter's tokenizer reads U+FFFD.
///
/// source   token-level intersection of Timor et al. 2025, arXiv:2502.05202 (TLI)
/// differs  the paper and transformers decode the text and encode it again for the drafter at every step. Here each
///          token is translated by itself, so that more text never changes what was read before and no row is computed
///          twice; the drafter reads other splits than its tokenizer makes around tokens that are not shared, which
///          costs acceptance alone
class SharedVocabulary {
 public:
  /// Throws Error when nothing is shared, or the drafter has no tokens for bytes that the target's have.
  SharedVocabulary(const TokenizedModel& target, const TokenizedModel& draft);

  /// Rows V of the target.
  int target_size() const { return static_cast<int>(first_.size()) - 1; }
  /// By rising id of the target. Each id comes once on each side.
  const std::vector<SharedToken>& shared() const { return shared_; }
  /// The draft tokens, one or more, that the drafter reads for a token of the target.
  std::span<const TokenId> spelling(TokenId target) const {
    const auto t = static_cast<std::size_t>(target);
    return std::span(spellings_).subspan(first_[t], first_[t + 1] - first_[t]);
  }
  /// What the drafter expects in front of a text; nothing when its tokenizer puts nothing there.
  const std::vector<TokenId>& begin() const { return begin_; }

 private:
  std::vector<SharedToken> shared_;
  std::vector<std::size_t> first_;  // [V + 1] into spellings_
  std::vector<TokenId> spellings_;
  std::vector<TokenId> begin_;
};

}  // namespace specmoe::nn
