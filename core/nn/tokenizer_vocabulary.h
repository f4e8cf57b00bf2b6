#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/types.h"

namespace specmoe::nn {

/// Token strings and their ids, both ways. Ids may have gaps, but not so many that a table over them would be mostly
/// empty: a huge id in a hostile file must not allocate.
class Vocabulary {
 public:
  /// Throws Error when the id or the token is taken.
  void add(std::string token, TokenId id);
  /// Builds the table from ids to tokens. Throws Error when ids are far above the number of tokens.
  void seal();

  std::optional<TokenId> find(std::string_view token) const;
  /// Null for an id without a token. Valid after seal().
  const std::string* text(TokenId id) const;
  bool has(TokenId id) const { return by_id_.contains(id); }
  /// One more than the largest id.
  TokenId size() const { return size_; }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> by_text_;
  std::unordered_map<TokenId, const std::string*> by_id_;
  std::vector<const std::string*> table_;
  TokenId size_ = 0;
};

}  // namespace specmoe::nn
