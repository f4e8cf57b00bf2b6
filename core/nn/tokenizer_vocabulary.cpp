#include "core/nn/tokenizer_vocabulary.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/nn/tokenizer_json.h"
#include "kernels/check.h"

namespace specmoe::nn {

void Vocabulary::add(std::string token, TokenId id) {
  SPECMOE_CHECK(id >= 0 && id < std::numeric_limits<TokenId>::max(), "tokenizer.json: token ", in_quotes(token),
                ": expected an id in [0, 2^31 - 1), got ", id);
  const auto [entry, added] = by_text_.emplace(std::move(token), id);
  SPECMOE_CHECK(added, "tokenizer.json: token ", in_quotes(entry->first), " is listed with ids ", entry->second,
                " and ", id);
  const auto [owner, free] = by_id_.emplace(id, &entry->first);
  SPECMOE_CHECK(free, "tokenizer.json: id ", id, " is given to both ", in_quotes(*owner->second), " and ",
                in_quotes(entry->first));
  size_ = std::max(size_, id + 1);
}

void Vocabulary::seal() {
  constexpr std::int64_t kMaxUnused = 1 << 16;
  const auto count = static_cast<std::int64_t>(by_id_.size());
  SPECMOE_CHECK(size_ <= 2 * count + kMaxUnused, "tokenizer.json: expected ids near the number of tokens, got id ",
                size_ - 1, " with ", count, " tokens");
  table_.assign(size_, nullptr);
  for (const auto& [id, text] : by_id_) table_[id] = text;
}

std::optional<TokenId> Vocabulary::find(std::string_view token) const {
  const auto found = by_text_.find(token);
  return found == by_text_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Vocabulary::text(TokenId id) const { return id >= 0 && id < size_ ? table_[id] : nullptr; }

}  // namespace specmoe::nn
