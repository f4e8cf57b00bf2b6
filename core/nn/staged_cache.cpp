#include "core/nn/staged_cache.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace specmoe::nn {

StagedCache::StagedCache(int capacity, const void* owner, int text) : capacity_(capacity), owner_(owner), text_(text) {
  SPECMOE_CHECK(capacity >= 1, "KV cache: capacity must be at least 1, got ", capacity);
}

void StagedCache::stage(std::span<const std::int32_t> parents) {
  const auto total = depths_.size() + parents.size();
  widen(static_cast<int>((total + 63) / 64));
  const auto words = static_cast<std::size_t>(words_);
  ancestors_.resize(total * words);
  for (const std::int32_t parent : parents) {
    const std::size_t row = depths_.size();
    std::uint64_t* mask = ancestors_.data() + row * words;
    if (parent < 0) {
      std::fill(mask, mask + words, 0);
    } else {
      std::copy_n(ancestors(parent), words, mask);
    }
    mask[row / 64] |= std::uint64_t{1} << (row % 64);
    depths_.push_back(parent < 0 ? 1 : depths_[static_cast<std::size_t>(parent)] + 1);
    parents_.push_back(parent);
  }
}

/// Lays the masks out again with `words` words each, last row first so that none is overwritten before it moves.
void StagedCache::widen(int words) {
  if (words <= words_) return;
  const auto from = static_cast<std::size_t>(words_);
  const auto to = static_cast<std::size_t>(words);
  ancestors_.resize(depths_.size() * to);
  for (std::size_t row = depths_.size(); row-- > 0;) {
    std::uint64_t* target = ancestors_.data() + row * to;
    std::memmove(target, ancestors_.data() + row * from, from * sizeof(std::uint64_t));
    std::fill(target + from, target + to, 0);
  }
  words_ = words;
}

void StagedCache::keep(std::span<const std::int32_t> path) {
  std::int32_t parent = -1;
  for (const std::int32_t row : path) {
    SPECMOE_CHECK(row >= 0 && row < staged(), "KV cache: cannot keep staged row ", row, " of ", staged());
    SPECMOE_CHECK(parents_[static_cast<std::size_t>(row)] == parent, "KV cache: staged row ", row, " hangs on row ",
                  parents_[static_cast<std::size_t>(row)], ", so it cannot be kept after row ", parent);
    parent = row;
  }
  move_rows(path);
  committed_ += static_cast<int>(path.size());
  drop_staged();
}

void StagedCache::truncate(int length) {
  SPECMOE_CHECK(length >= 0 && length <= committed_, "KV cache: cannot cut ", committed_, " committed rows to ",
                length);
  committed_ = length;
  drop_staged();
}

void StagedCache::drop_staged() {
  depths_.clear();
  parents_.clear();
  ancestors_.clear();
  words_ = 0;
}

}  // namespace specmoe::nn
