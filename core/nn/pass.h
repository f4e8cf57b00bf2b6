#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/language_model.h"
#include "core/nn/model_spec.h"
#include "core/nn/staged_cache.h"
#include "kernels/view.h"

namespace specmoe::nn {

/// The new rows of a forward pass, block after block. Reused from pass to pass.
struct Pass {
  struct Block {
    StagedCache* cache = nullptr;
    int first_row = 0;
    int rows = 0;
    int first_staged = 0;
    std::size_t whole_mask = 0;  // where its rows' masks begin in whole_masks
    kernels::Rows<const float> features{};
  };
  std::vector<Block> blocks;
  std::vector<TokenId> tokens;             // [T]
  std::vector<std::int32_t> positions;     // [T] in the text
  std::vector<std::int32_t> wanted;        // rows with logits
  std::vector<std::int32_t> row_begin;     // [blocks + 1] into wanted
  std::vector<std::uint64_t> whole_masks;  // of each row, all staged rows of its cache: see mask_whole_blocks()

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  /// Whether its rows come with features; of a head that proposes blocks all do or none does.
  bool has_features() const { return !blocks.empty() && blocks[0].features.cols > 0; }

  /// Throws Error, before anything is touched, when a block cannot run or a boundary cannot be tapped. owner: the model
  /// whose caches these must be.
  void check(const ModelSpec& spec, const void* owner, std::span<const RowBlock> requests, std::span<const int> taps);
  /// Stages every block in its cache. The blocks have been checked.
  void stage(std::span<const RowBlock> requests);
  /// Makes whole_masks of the blocks that were staged, for layers that see them (AttentionSpec::whole_block).
  void mask_whole_blocks();
  /// Gives every part of `result` that is wanted the size it has for this pass.
  void size_result(const ModelSpec& spec, ForwardResult& result) const;

 private:
  void check_length(const ModelSpec& spec, const StagedCache& cache, const RowBlock& block);
  static void check_block_head(std::span<const RowBlock> requests, std::span<const int> taps);
  static void check_features(const ModelSpec& spec, std::size_t index, const RowBlock& block);

  std::vector<std::int32_t> depths_;  // scratch of check_length()
};

}  // namespace specmoe::nn
