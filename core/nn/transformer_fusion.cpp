#include <algorithm>

#include "core/nn/transformer.h"

// What a draft head does before and inside its layer that other models do not: see FusionSpec.
namespace specmoe::nn {

using kernels::contiguous;
using kernels::Range;
using kernels::Rows;
using kernels::Shard;
using kernels::split;

/// The rows that enter the layer, each a token and its features.
void Transformer::fuse(Member& member) {
  const FusionSpec& spec = *spec_.fusion;
  const FusionWeights& weights = weights_->fusion;
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  const Range own_rows = split(x.rows, member.shard());
  take_features(own_rows);
  if (!std::ranges::all_of(pass_.blocks, [this](const Pass::Block& block) { return skips_fc(block); })) {
    member.barrier();
    kernels_.packed_linear(rows(workspace_.features, spec_.fusion_inputs()), weights.fc, data_or_null(weights.bias), {},
                           x, weights.fc.share(member.shard()));
    member.barrier();
  }
  for (const Pass::Block& block : pass_.blocks) {
    const std::int64_t end = std::min<std::int64_t>(own_rows.end, block.first_row + block.rows);
    for (std::int64_t t = std::max<std::int64_t>(own_rows.begin, block.first_row); t < end; ++t) {
      if (skips_fc(block)) std::copy_n(block.features.row(t - block.first_row), x.cols, x.row(t));
      const Rows<float> row = contiguous(x.row(t), 1, x.cols);
      if (spec.normed_residual) normalise(row, layers_[0]->attention_norm, row);
    }
  }
}

/// Caches keys and values of rows that the target has been at (FusionSpec::block_size).
void Transformer::cache_context(Member& member) {
  const Shard shard = member.shard();
  Private& mine = own(shard);
  const FusionWeights& fusion = weights_->fusion;
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  for (const Pass::Block& block : pass_.blocks) {
    kernels_.packed_linear(block.features, fusion.fc, data_or_null(fusion.bias), {},
                           {x.row(block.first_row), block.rows, x.cols, x.stride}, fusion.fc.share(shard));
  }
  member.barrier();
  const Rows<float> context = rows(mine.normed, spec_.hidden_size);
  kernels_.rms_norm(x, fusion.feature_norm.data(), spec_.norm_eps, context);
  for (std::size_t layer = 0; layer < spec_.layers.size(); ++layer) {
    const AttentionSpec& spec = spec_.layers[layer].attention;
    const LayerWeights& weights = *layers_[layer];
    const std::int64_t first = std::int64_t{spec.heads} * spec.head_dim / kernels::PackedMatrix::kPanel;  // of keys
    const Range panels = split(weights.qkv.panels() - first, shard);
    kernels_.packed_linear(context, weights.qkv, data_or_null(weights.qkv_bias), {},
                           rows(workspace_.qkv, weights.qkv.rows()), Range{first + panels.begin, first + panels.end});
    member.barrier();
    const Range heads = split(static_cast<std::int64_t>(pass_.blocks.size()) * spec.kv_heads, shard);
    for (std::int64_t i = heads.begin; i < heads.end; ++i) {
      store_head(layer, pass_.blocks[static_cast<std::size_t>(i / spec.kv_heads)], static_cast<int>(i % spec.kv_heads),
                 mine);
    }
    member.barrier();
  }
}

/// Rows that EAGLE-3 handed on are the stream already.
bool Transformer::skips_fc(const Pass::Block& block) const {
  return spec_.fusion->wide_attention && block.features.cols == spec_.hidden_size;
}

/// Embeds these rows' tokens, and puts what fc reads into place.
void Transformer::take_features(Range own_rows) {
  const FusionSpec& spec = *spec_.fusion;
  const std::int64_t hidden = spec_.hidden_size;
  const Rows<float> inputs = rows(workspace_.features, spec_.fusion_inputs());
  const Rows<float> embedded = rows(workspace_.embedded, hidden);
  for (const Pass::Block& block : pass_.blocks) {
    const std::int64_t end = std::min<std::int64_t>(own_rows.end, block.first_row + block.rows);
    for (std::int64_t t = std::max<std::int64_t>(own_rows.begin, block.first_row); t < end; ++t) {
      float* input = inputs.row(t);
      const Rows<float> embedding = contiguous(spec.wide_attention ? embedded.row(t) : input, 1, hidden);
      embedding_of_->embed(pass_.tokens[static_cast<std::size_t>(t)], embedding.data);
      if (spec.normed_embedding) {
        kernels_.rms_norm(embedding, weights_->fusion.embedding_norm.data(), spec_.norm_eps, embedding);
      }
      if (skips_fc(block)) {
        std::fill_n(input, inputs.cols, 0.0F);
      } else {
        put_features(block.features.row(t - block.first_row), spec.wide_attention ? input : input + hidden);
      }
    }
  }
}

/// Copies one row's features, normed where they are.
void Transformer::put_features(const float* features, float* input) const {
  const FusionSpec& spec = *spec_.fusion;
  const std::int64_t width = std::int64_t{spec.taps} * spec.tap_size;
  if (spec.feature_norm == FeatureNorm::kNone) {
    std::copy_n(features, width, input);
    return;
  }
  const std::int64_t size = spec.feature_norm == FeatureNorm::kEach ? spec.tap_size : width;
  for (std::int64_t first = 0; first < width; first += size) {
    kernels_.rms_norm(contiguous(features + first, 1, size), weights_->fusion.feature_norm.data() + first,
                      spec_.norm_eps, contiguous(input + first, 1, size));
  }
}

/// The normed stream, behind the normed embeddings where attention reads both.
Rows<const float> Transformer::attention_input(std::size_t layer, Private& mine) const {
  const NormWeights& stream_norm = layers_[layer]->attention_norm;
  if (!spec_.fusion || !spec_.fusion->wide_attention) return norm(stream_norm, mine);
  const std::int64_t hidden = spec_.hidden_size;
  const Rows<float> wide = rows(mine.wide, spec_.attention_inputs());
  const Rows<float> embedded = rows(workspace_.embedded, hidden);
  const Rows<float> stream = {wide.data + hidden, wide.rows, hidden, wide.stride};
  for (std::int64_t t = 0; t < wide.rows; ++t) std::copy_n(embedded.row(t), hidden, wide.row(t));
  static const NormWeights kNoNorm;
  normalise(rows(workspace_.x, hidden), spec_.fusion->normed_residual ? kNoNorm : stream_norm, stream);
  return wide;
}

}  // namespace specmoe::nn
