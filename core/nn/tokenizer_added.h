#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/nn/tokenizer_normalize.h"
#include "core/nn/tokenizer_pattern.h"
#include "core/nn/tokenizer_text.h"
#include "core/nn/tokenizer_vocabulary.h"
#include "core/types.h"

namespace specmoe::nn {

/// A token that is cut out of the text before BPE sees it.
/// single_word     only where no word character touches it
/// lstrip, rstrip  takes the white space next to it along
/// normalized      looked for in the normalised text, in its own normalised form
/// special         left out of decoded text when asked
/// form            what is looked for, and what decodes: content, normalised where that is asked
struct AddedToken {
  TokenId id = 0;
  std::string content;
  std::string form;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
  bool special = false;
};

/// A part of a text: an added token, or the text between them.
struct Segment {
  Span span;
  const AddedToken* token = nullptr;
};

/// Finds any of a set of strings: at the leftmost place, the longest of them.
class StringSet {
 public:
  void add(std::string_view text, std::size_t value);

  struct Match {
    std::size_t end = 0;
    std::size_t value = 0;
  };
  /// The longest member that begins at text[at].
  std::optional<Match> longest_at(std::string_view text, std::size_t at) const;

 private:
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  // (node, byte) -> node; node 0 is the root
  std::unordered_map<std::uint32_t, std::size_t> values_;   // of the nodes where a member ends
  bool starts_[256] = {};                                   // bytes that begin a member
  std::uint32_t nodes_ = 1;
};

/// The "added_tokens" of a tokenizer.json.
class AddedTokens {
 public:
  /// Throws Error for a token or an id that contradicts the model's vocabulary.
  AddedTokens(const nlohmann::json& list, const Vocabulary& model, const Normalizers& normalizers);

  enum class Stage { kRaw, kNormalized };
  /// Cuts a text into added tokens of that stage and the rest, in order.
  std::vector<Segment> split(std::string_view text, Stage stage, bool match_special) const;

  const AddedToken* find(TokenId id) const;
  const AddedToken* find(std::string_view content) const;
  TokenId size() const { return size_; }  // one more than the largest id

 private:
  void add(AddedToken token, const Vocabulary& model);
  bool stands_alone(std::string_view text, Span match) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<TokenId, std::size_t> by_id_;
  std::unordered_map<std::string, std::size_t> by_content_;
  StringSet raw_;
  StringSet normalized_;
  Regex word_character_;
  TokenId size_ = 0;
};

}  // namespace specmoe::nn
