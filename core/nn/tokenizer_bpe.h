#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/nn/tokenizer_merges.h"
#include "core/nn/tokenizer_vocabulary.h"
#include "core/types.h"

namespace specmoe::nn {

class JsonComponent;

/// One token of a word while it is being merged, in a linked list through the array.
/// bytes  of the word it covers; 0 once it has been merged into its left neighbour
struct BpeSymbol {
  TokenId id = 0;
  std::uint32_t bytes = 0;
  std::int32_t previous = -1;
  std::int32_t next = -1;
};

/// A merge that was possible when it was queued. Entries made stale by other merges are skipped when they come up.
struct BpeCandidate {
  std::uint64_t order = 0;  // rank, then position: the smallest goes first
  TokenId merged = 0;
};

/// Working memory of encode_word, kept from word to word.
struct BpeScratch {
  std::vector<BpeSymbol> symbols;
  std::vector<BpeCandidate> queue;
};

/// Byte pair encoding with a fixed list of merges (Sennrich et al. 2016, arXiv:1508.07909).
class BpeModel {
 public:
  /// The "model" of a tokenizer.json. Throws Error for another model, dropout, word affixes, and merges of unknown
  /// tokens.
  explicit BpeModel(const nlohmann::json& value);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  /// Leaves the word's tokens in scratch.symbols, in order: those with bytes > 0. O(n log n) in the word's length.
  /// Characters that have no token, no bytes and no unknown token are dropped.
  void encode_word(std::string_view word, BpeScratch& scratch) const;

 private:
  void read_vocabulary(const JsonComponent& component);
  void read_merges(const JsonComponent& component);
  std::optional<TokenId> character_id(char32_t code_point, std::string_view character) const;
  void split_characters(std::string_view word, std::vector<BpeSymbol>& symbols) const;
  bool fall_back_to_bytes(std::string_view character, std::vector<BpeSymbol>& symbols) const;
  void merge_all(BpeScratch& scratch) const;
  void queue_pair(BpeScratch& scratch, std::int32_t left) const;

  static constexpr std::size_t kDirectCharacters = 0x180;  // the byte-level alphabet and all of Latin-1

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::array<TokenId, kDirectCharacters> direct_ids_{};  // -1: no token
  std::array<TokenId, 256> byte_ids_{};                  // of <0x00> ... <0xFF>, -1: no token
  std::string unknown_token_;                            // empty: none
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace specmoe::nn
