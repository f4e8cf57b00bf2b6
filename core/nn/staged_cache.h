#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/language_model.h"

namespace specmoe::nn {

/// What is committed and what is staged in one sequence's cache, wherever its keys and values lie. Staged rows lie
/// behind the committed ones in the order they came; keep() closes the gaps in place.
class StagedCache : public KVCache {
 public:
  /// owner  the model it belongs to; forward() refuses the caches of others
  /// text   tokens of the longest text meant for it
  StagedCache(int capacity, const void* owner, int text);

  int capacity() const override { return capacity_; }
  int committed() const override { return committed_; }
  int staged() const override { return static_cast<int>(depths_.size()); }
  void keep(std::span<const std::int32_t> path) override;
  void truncate(int length) override;

  const void* owner() const { return owner_; }
  int text() const { return text_; }
  /// Appends staged rows; parents as in RowBlock, already checked.
  void stage(std::span<const std::int32_t> parents);
  /// Depth of every staged row below the last committed one, counted from 1.
  const std::int32_t* depths() const { return depths_.data(); }
  /// Words of an ancestor mask: ceil(staged() / 64).
  int words() const { return words_; }
  /// Ancestors of staged row `row`, itself included.
  const std::uint64_t* ancestors(int row) const {
    return ancestors_.data() + static_cast<std::size_t>(row) * static_cast<std::size_t>(words_);
  }

 protected:
  /// Moves the keys and values of staged rows `path`, ascending, behind the committed ones.
  virtual void move_rows(std::span<const std::int32_t> path) = 0;

 private:
  void widen(int words);
  void drop_staged();

  int capacity_ = 0;
  const void* owner_ = nullptr;
  int text_ = 0;
  int committed_ = 0;
  int words_ = 0;
  std::vector<std::int32_t> depths_;
  std::vector<std::int32_t> parents_;
  std::vector<std::uint64_t> ancestors_;  // [staged, words_]
};

}  // namespace specmoe::nn
