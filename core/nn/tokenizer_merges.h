#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/types.h"

namespace specmoe::nn {

/// rank  its line in the file: the lowest applies first
struct Merge {
  std::uint32_t rank = 0;
  TokenId merged = 0;
};

/// Which pairs of neighbouring tokens merge, into what. An open-addressing table: a word asks about each of its pairs,
/// and most answers are no.
class MergeTable {
 public:
  explicit MergeTable(std::size_t expected_merges = 0);

  /// A pair listed again keeps the later rank.
  void set(TokenId left, TokenId right, Merge merge);
  /// Null when the pair does not merge.
  const Merge* find(TokenId left, TokenId right) const;

 private:
  struct Slot {
    std::uint64_t pair;
    Merge merge;
  };

  std::size_t slot_of(std::uint64_t pair) const;

  std::vector<Slot> slots_;  // a power of two, at most half full
  int shift_ = 0;
};

}  // namespace specmoe::nn
