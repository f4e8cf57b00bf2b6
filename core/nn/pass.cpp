#include "core/nn/pass.h"

#include "core/nn/block_check.h"
#include "kernels/check.h"

namespace specmoe::nn {

void Pass::check(const ModelSpec& spec, const void* owner, std::span<const RowBlock> requests,
                 std::span<const int> taps) {
  for (std::size_t b = 0; b < requests.size(); ++b) {
    const RowBlock& block = requests[b];
    const auto* cache = dynamic_cast<const StagedCache*>(block.cache);
    SPECMOE_CHECK(cache != nullptr && cache->owner() == owner, "forward: block ", b, " needs a cache of this model (",
                  spec.name, ")");
    check_block(requests, b, spec.vocab_size);
    check_length(spec, *cache, block);
    check_features(spec, b, block);
  }
  if (spec.fusion && spec.fusion->block_size > 0) check_block_head(requests, taps);
  const int last = static_cast<int>(spec.layers.size()) + 1;
  for (const int boundary : taps) {
    SPECMOE_CHECK(boundary >= 0 && boundary <= last, "forward: ", spec.name, " has boundaries 0 to ", last,
                  ", asked for ", boundary);
  }
}

/// Rows with features are only cached.
void Pass::check_block_head(std::span<const RowBlock> requests, std::span<const int> taps) {
  for (const RowBlock& block : requests) {
    SPECMOE_CHECK(block.features.empty() == requests[0].features.empty(),
                  "forward: a pass of this head has features in all of its blocks or in none");
    SPECMOE_CHECK(block.features.empty() || (block.logits == LogitsWanted::kNone && taps.empty()),
                  "forward: rows with features are only cached by this head; they have no logits and no boundaries");
  }
}

void Pass::check_features(const ModelSpec& spec, std::size_t index, const RowBlock& block) {
  const bool hands_on = spec.fusion && spec.fusion->block_size == 0;
  const std::size_t own = hands_on ? static_cast<std::size_t>(spec.hidden_size) : 0;
  const std::size_t tapped = spec.fusion ? static_cast<std::size_t>(spec.fusion->taps * spec.fusion->tap_size) : 0;
  const std::size_t rows = block.tokens.size();
  SPECMOE_CHECK(block.features.size() == rows * own || block.features.size() == rows * tapped, "forward: block ", index,
                " of ", rows, " rows has ", block.features.size(), " features, ", spec.name, " takes ", tapped,
                spec.fusion ? concat(" or ", own, " a row") : " a row");
}

void Pass::check_length(const ModelSpec& spec, const StagedCache& cache, const RowBlock& block) {
  const auto staged = static_cast<std::size_t>(cache.staged());
  depths_.assign(cache.depths(), cache.depths() + staged);
  for (std::size_t i = 0; i < block.tokens.size(); ++i) {
    const std::int32_t parent = block.parents[i];
    depths_.push_back(parent < 0 ? 1 : depths_[static_cast<std::size_t>(parent)] + 1);
    const int length = cache.committed() + depths_.back();
    SPECMOE_CHECK(length <= spec.max_positions, "forward: text of ", length, " tokens is longer than the ",
                  spec.max_positions, " of ", spec.name);
  }
}

void Pass::stage(std::span<const RowBlock> requests) {
  blocks.clear();
  tokens.clear();
  positions.clear();
  wanted.clear();
  row_begin.assign(1, 0);
  for (const RowBlock& request : requests) {
    auto* cache = static_cast<StagedCache*>(request.cache);
    const int first = static_cast<int>(tokens.size());
    const int count = static_cast<int>(request.tokens.size());
    const int staged = cache->staged();
    cache->stage(request.parents);
    const auto width = static_cast<std::int64_t>(request.features.size() / request.tokens.size());
    blocks.push_back({cache, first, count, staged, 0, kernels::contiguous(request.features.data(), count, width)});
    tokens.insert(tokens.end(), request.tokens.begin(), request.tokens.end());
    for (int i = 0; i < count; ++i) {
      positions.push_back(cache->committed() + cache->depths()[staged + i] - 1);
      const bool last = i + 1 == count;
      if (request.logits == LogitsWanted::kAll || (request.logits == LogitsWanted::kLast && last)) {
        wanted.push_back(first + i);
      }
    }
    row_begin.push_back(static_cast<std::int32_t>(wanted.size()));
  }
}

void Pass::mask_whole_blocks() {
  whole_masks.clear();
  for (Block& block : blocks) {
    block.whole_mask = whole_masks.size();
    for (int row = 0; row < block.rows; ++row) {
      for (int left = block.cache->staged(); left > 0; left -= 64) {
        whole_masks.push_back(left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1);
      }
    }
  }
}

void Pass::size_result(const ModelSpec& spec, ForwardResult& result) const {
  result.vocab = spec.vocab_size;
  result.row_begin = row_begin;
  result.logits.resize(result.want_logits ? wanted.size() * static_cast<std::size_t>(spec.vocab_size) : 0);
  result.argmax.resize(wanted.size());
  result.tapped.resize(tokens.size() * result.taps.size() * static_cast<std::size_t>(spec.hidden_size));
  result.moe_layers = 0;
  result.moe_rows = static_cast<int>(tokens.size());
  std::size_t choices = 0;  // of one row
  for (const LayerSpec& layer : spec.layers) {
    if (!layer.ffn.router) continue;
    ++result.moe_layers;
    choices += static_cast<std::size_t>(layer.ffn.router->experts_per_token);
  }
  result.experts.resize(result.want_experts ? tokens.size() * choices : 0);
}

}  // namespace specmoe::nn
