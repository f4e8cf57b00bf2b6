#include "core/nn/shared_vocabulary.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

/// The ordinary tokens of a model by their bytes.
class Pieces {
 public:
  explicit Pieces(const TokenizedModel& side)
      : bytes_(static_cast<std::size_t>(std::min(side.model.vocab_size, side.tokenizer.vocab_size()))) {
    id_of_.reserve(bytes_.size());
    for (TokenId id = 0; id < size(); ++id) {
      if (!side.tokenizer.is_special(id)) add(side.tokenizer, id);
    }
  }
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  TokenId size() const { return static_cast<TokenId>(bytes_.size()); }
  /// Empty for a special token, and for an id without a token.
  std::string_view bytes(TokenId id) const {
    return id < size() ? std::string_view(bytes_[static_cast<std::size_t>(id)]) : std::string_view();
  }
  std::optional<TokenId> find(std::string_view bytes) const {
    const auto found = id_of_.find(bytes);
    return found == id_of_.end() ? std::nullopt : std::optional(found->second);
  }
  /// The longest token that `text` begins with, if any does.
  std::optional<TokenId> longest(std::string_view text) const {
    for (std::size_t length = std::min(longest_, text.size()); length > 0; --length) {
      if (const auto found = find(text.substr(0, length))) return found;
    }
    return std::nullopt;
  }

 private:
  void add(const Tokenizer& tokenizer, TokenId id) {
    std::string& bytes = bytes_[static_cast<std::size_t>(id)];
    bytes = tokenizer.token_bytes(id);
    if (bytes.empty()) return;
    longest_ = std::max(longest_, bytes.size());
    const auto [place, first] = id_of_.emplace(bytes, id);
    const auto spelled = [&](TokenId token) { return tokenizer.token_text(token).size(); };
    if (!first && spelled(id) < spelled(place->second)) place->second = id;
  }

  std::vector<std::string> bytes_;  // never resized: the keys of id_of_ lie in it
  std::unordered_map<std::string_view, TokenId> id_of_;
  std::size_t longest_ = 0;
};

/// The draft tokens that special tokens of the target stand for.
class Specials {
 public:
  struct Match {
    TokenId draft = 0;
    bool shared = false;
  };

  Specials(const TokenizedModel& target, const TokenizedModel& draft) : target_(target), draft_(draft) {
    for (TokenId id = 0; id < std::min(target.model.vocab_size, target.tokenizer.vocab_size()); ++id) {
      if (!target.tokenizer.is_special(id)) continue;
      const auto same = draft.tokenizer.id_of(target.tokenizer.token_text(id));
      if (same && draft.tokenizer.is_special(*same)) match(id, *same, true);
    }
    const std::vector<TokenId> begin = draft.tokenizer.begin_tokens();
    const std::vector<TokenId>& end = draft.model.stop_tokens;
    const std::vector<TokenId> target_begin = target.tokenizer.begin_tokens();
    if (!target_begin.empty() && !begin.empty()) match(target_begin.front(), begin.front(), true);
    for (const TokenId id : target.model.stop_tokens) {
      if (!end.empty()) match(id, end.front(), true);
    }
    if (!target_begin.empty() && !end.empty()) match(target_begin.front(), end.front(), false);
  }

  const Match* find(TokenId target) const {
    const auto found = matches_.find(target);
    return found == matches_.end() ? nullptr : &found->second;
  }

 private:
  /// The first of the target's tokens to match a draft token is the one that shares it.
  void match(TokenId target, TokenId draft, bool share) {
    if (!target_.tokenizer.is_special(target) || draft < 0 || draft >= draft_.model.vocab_size) return;
    const auto [place, added] = matches_.emplace(target, Match{draft, false});
    if (added && share) place->second.shared = taken_.insert(draft).second;
  }

  const TokenizedModel& target_;
  const TokenizedModel& draft_;
  std::unordered_map<TokenId, Match> matches_;
  std::unordered_set<TokenId> taken_;
};

/// Text as draft tokens.
class Speller {
 public:
  Speller(const TokenizedModel& draft, const Pieces& pieces) : draft_(draft), pieces_(pieces) {}

  void spell(std::string_view text, std::vector<TokenId>& out) {
    while (!text.empty()) {
      if (const auto piece = pieces_.longest(text)) {
        out.push_back(*piece);
        text.remove_prefix(pieces_.bytes(*piece).size());
      } else {
        spell_unknown(out);
        text.remove_prefix(1);
      }
    }
  }
  void spell_unknown(std::vector<TokenId>& out) {
    if (unknown_.empty()) unknown_ = draft_.tokenizer.encode(kReplacementCharacter, false, false);
    const bool known = !unknown_.empty() && *std::max_element(unknown_.begin(), unknown_.end()) < pieces_.size();
    SPECMOE_CHECK(known, "the vocabulary of ", draft_.model.name,
                  " cannot spell all bytes of the target's tokens, nor U+FFFD in their place; draft with a model whose "
                  "tokenizer has byte tokens");
    out.insert(out.end(), unknown_.begin(), unknown_.end());
  }

 private:
  const TokenizedModel& draft_;
  const Pieces& pieces_;
  std::vector<TokenId> unknown_;
};

}  // namespace

SharedVocabulary::SharedVocabulary(const TokenizedModel& target, const TokenizedModel& draft)
    : begin_(draft.tokenizer.begin_tokens()) {
  const Pieces pieces(target);
  const Pieces draft_pieces(draft);
  const Specials specials(target, draft);
  Speller speller(draft, draft_pieces);
  for (TokenId id = 0; id < target.model.vocab_size; ++id) {
    first_.push_back(spellings_.size());
    const std::string_view bytes = pieces.bytes(id);
    if (const Specials::Match* match = specials.find(id)) {
      spellings_.push_back(match->draft);
      if (match->shared) shared_.push_back({id, match->draft});
    } else if (const auto same = draft_pieces.find(bytes)) {
      spellings_.push_back(*same);
      if (pieces.find(bytes) == id) shared_.push_back({id, *same});
    } else {
      speller.spell(target.tokenizer.token_bytes(id), spellings_);
      if (spellings_.size() == first_.back()) speller.spell_unknown(spellings_);
    }
  }
  first_.push_back(spellings_.size());
  SPECMOE_CHECK(!shared_.empty(), "the vocabularies of ", target.model.name, " and ", draft.model.name,
                " share no token; draft with another model");
}

}  // namespace specmoe::nn
