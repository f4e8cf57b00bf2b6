#include "core/nn/block_check.h"

#include "kernels/check.h"

namespace specmoe::nn {

void check_block(std::span<const RowBlock> blocks, std::size_t b, int vocab_size) {
  const RowBlock& block = blocks[b];
  for (std::size_t other = 0; other < b; ++other) {
    SPECMOE_CHECK(blocks[other].cache != block.cache, "forward: blocks ", other, " and ", b, " use the same cache");
  }
  SPECMOE_CHECK(!block.tokens.empty() && block.parents.size() == block.tokens.size(), "forward: block ", b,
                " needs one parent per token and at least one, got ", block.tokens.size(), " tokens and ",
                block.parents.size(), " parents");
  const int room = block.cache->capacity() - block.cache->committed() - block.cache->staged();
  SPECMOE_CHECK(block.tokens.size() <= static_cast<std::size_t>(room), "forward: block ", b, " has ",
                block.tokens.size(), " rows, the cache has room for ", room);
  for (std::size_t i = 0; i < block.tokens.size(); ++i) {
    const std::int64_t row = block.cache->staged() + static_cast<std::int64_t>(i);
    SPECMOE_CHECK(block.tokens[i] >= 0 && block.tokens[i] < vocab_size, "forward: token ", block.tokens[i],
                  " is outside the vocabulary of ", vocab_size);
    SPECMOE_CHECK(block.parents[i] >= -1 && block.parents[i] < row, "forward: row ", row, " hangs on row ",
                  block.parents[i], ", expected an earlier staged row or -1");
  }
}

}  // namespace specmoe::nn
