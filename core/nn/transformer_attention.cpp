#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/nn/transformer.h"

namespace specmoe::nn {

using kernels::contiguous;
using kernels::Range;
using kernels::Rows;
using kernels::Shard;
using kernels::split;

namespace {

void scale(Rows<float> x, float factor) {
  if (factor == 1.0F) return;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t d = 0; d < x.cols; ++d) x.row(t)[d] *= factor;
  }
}

void clip(Rows<float> x, float limit) {
  if (limit <= 0.0F) return;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t d = 0; d < x.cols; ++d) x.row(t)[d] = std::clamp(x.row(t)[d], -limit, limit);
  }
}

void copy_rows(Rows<const float> from, Rows<float> to) {
  for (std::int64_t t = 0; t < to.rows; ++t) {
    std::memcpy(to.row(t), from.row(t), static_cast<std::size_t>(to.cols) * sizeof(float));
  }
}

/// Columns [first, first + cols) of the rows that begin at `first_row`.
Rows<float> part(Rows<float> x, std::int64_t first_row, std::int64_t rows, std::int64_t first, std::int64_t cols) {
  return {x.row(first_row) + first, rows, cols, x.stride};
}

/// First column of kv_down's outputs in the first projections of latent attention.
std::int64_t latent_kv_column(const AttentionSpec& spec) {
  const int rank = spec.latent->query_rank;
  return rank > 0 ? rank : std::int64_t{spec.heads} * spec.head_dim;
}

/// Whether every thread can project just the heads that it attends with.
bool keeps_heads(const AttentionSpec& spec, Shard shard) {
  return !spec.latent && spec.qk_norm != QkNorm::kFlat && spec.head_dim % kernels::PackedMatrix::kPanel == 0 &&
         spec.kv_heads % shard.count == 0;
}

}  // namespace

void Transformer::attention(std::size_t layer, Member& member) {
  const LayerWeights& weights = *layers_[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const Shard shard = member.shard();
  const Rows<const float> normed = attention_input(layer, own(shard));
  if (keeps_heads(spec, shard)) {
    attend_own_heads(layer, normed, split(spec.kv_heads, shard), own(shard));
  } else {
    attend_shared_heads(layer, normed, member);
  }
  member.barrier();
  const bool sandwich = spec_.block_order == BlockOrder::kSandwich;
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  kernels_.packed_linear(rows(workspace_.attended, weights.output.cols()), weights.output,
                         data_or_null(weights.output_bias), sandwich ? Rows<const float>{} : x,
                         sandwich ? rows(workspace_.branch, spec_.hidden_size) : x, weights.output.share(shard));
  if (sandwich) add_normed_branch(weights.attention_out_norm, member);
}

/// Projects queries, keys and values of these kv heads and attends with them; nobody else needs to be waited for.
void Transformer::attend_own_heads(std::size_t layer, Rows<const float> normed, Range kv_heads, Private& mine) {
  const LayerWeights& weights = *layers_[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const std::int64_t panels = spec.head_dim / kernels::PackedMatrix::kPanel;  // of a head
  const std::int64_t group = spec.heads / spec.kv_heads;
  const auto panels_of = [&](std::int64_t first_head, Range heads) {
    return Range{(first_head + heads.begin) * panels, (first_head + heads.end) * panels};
  };
  kernels_.packed_linear(normed, weights.qkv, data_or_null(weights.qkv_bias), {},
                         rows(workspace_.qkv, weights.qkv.rows()),
                         {panels_of(0, {kv_heads.begin * group, kv_heads.end * group}), panels_of(spec.heads, kv_heads),
                          panels_of(spec.heads + spec.kv_heads, kv_heads)});
  for (const Pass::Block& block : pass_.blocks) {
    for (std::int64_t h = kv_heads.begin; h < kv_heads.end; ++h) attend(layer, block, static_cast<int>(h), mine);
  }
}

/// The same where heads cannot be told apart by panels, or do not go evenly into the team.
void Transformer::attend_shared_heads(std::size_t layer, Rows<const float> normed, Member& member) {
  const LayerWeights& weights = *layers_[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  kernels_.packed_linear(normed, weights.qkv, data_or_null(weights.qkv_bias), {},
                         rows(workspace_.qkv, weights.qkv.rows()), weights.qkv.share(member.shard()));
  member.barrier();
  if (spec.latent) expand_latent(layer, member);
  if (spec.qk_norm == QkNorm::kFlat) {
    normalise_flat(layer, member.shard());
    member.barrier();
  }
  const auto heads = split(static_cast<std::int64_t>(pass_.blocks.size()) * spec.kv_heads, member.shard());
  for (std::int64_t i = heads.begin; i < heads.end; ++i) {
    attend(layer, pass_.blocks[static_cast<std::size_t>(i / spec.kv_heads)], static_cast<int>(i % spec.kv_heads),
           own(member.shard()));
  }
}

/// From the low-rank vectors, which every thread normalises for itself, to queries, and to keys with values.
void Transformer::expand_latent(std::size_t layer, Member& member) {
  const LayerWeights& weights = *layers_[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LatentSpec& latent = *spec.latent;
  float* own_rows = own(member.shard()).latent.data();
  const Rows<float> first = rows(workspace_.qkv, weights.qkv.rows());
  if (latent.query_rank > 0) {
    const Rows<float> normed = contiguous(own_rows, first.rows, std::int64_t{latent.query_rank});
    kernels_.rms_norm(part(first, 0, first.rows, 0, latent.query_rank), weights.query_down_norm.data(), latent.norm_eps,
                      normed);
    kernels_.packed_linear(normed, weights.query_up, nullptr, {}, rows(workspace_.query, weights.query_up.rows()),
                           weights.query_up.share(member.shard()));
  }
  const Rows<float> normed =
      contiguous(own_rows + first.rows * latent.query_rank, first.rows, std::int64_t{latent.kv_rank});
  kernels_.rms_norm(part(first, 0, first.rows, latent_kv_column(spec), latent.kv_rank), weights.kv_down_norm.data(),
                    latent.norm_eps, normed);
  kernels_.packed_linear(normed, weights.kv_up, nullptr, {}, rows(workspace_.kv, weights.kv_up.rows()),
                         weights.kv_up.share(member.shard()));
  member.barrier();
}

/// All query heads as one vector, all key heads as another; each thread takes some of the rows.
void Transformer::normalise_flat(std::size_t layer, Shard shard) {
  const LayerWeights& weights = *layers_[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const std::int64_t queries = std::int64_t{spec.heads} * spec.head_dim;
  const std::int64_t keys = std::int64_t{spec.kv_heads} * spec.head_dim;
  const Rows<float> qkv = rows(workspace_.qkv, weights.qkv.rows());
  const auto range = split(qkv.rows, shard);
  const Rows<float> query = part(qkv, range.begin, range.end - range.begin, 0, queries);
  const Rows<float> key = part(qkv, range.begin, range.end - range.begin, queries, keys);
  kernels_.rms_norm(query, weights.query_norm.data(), spec_.norm_eps, query);
  kernels_.rms_norm(key, weights.key_norm.data(), spec_.norm_eps, key);
}

/// All query heads of a block's rows, side by side.
Rows<float> Transformer::query_heads(std::size_t layer, const Pass::Block& block) const {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const std::int64_t width = std::int64_t{spec.heads} * spec.head_dim;
  const bool low_rank = spec.latent && spec.latent->query_rank > 0;
  const Rows<float> all = low_rank ? rows(workspace_.query, width) : rows(workspace_.qkv, layers_[layer]->qkv.rows());
  return part(all, block.first_row, block.rows, 0, width);
}

/// Copies a block's keys and values of one kv head, not yet turned.
void Transformer::take_head(std::size_t layer, const Pass::Block& block, int kv_head, Rows<float> key,
                            Rows<float> value) const {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LayerWeights& weights = *layers_[layer];
  const auto columns = [&](Rows<float> from, std::int64_t first, std::int64_t cols) {
    return part(from, block.first_row, block.rows, first, cols);
  };
  const Rows<float> qkv = rows(workspace_.qkv, weights.qkv.rows());
  if (!spec.latent) {
    const std::int64_t first = (std::int64_t{spec.heads} + kv_head) * spec.head_dim;
    copy_rows(columns(qkv, first, spec.head_dim), key);
    copy_rows(columns(qkv, first + std::int64_t{spec.kv_heads} * spec.head_dim, spec.head_dim), value);
    return;
  }
  const LatentSpec& latent = *spec.latent;
  const Rows<float> kv = rows(workspace_.kv, weights.kv_up.rows());
  const std::int64_t first = std::int64_t{kv_head} * (latent.nope_dim + latent.value_dim);
  copy_rows(columns(kv, first, latent.nope_dim), part(key, 0, key.rows, 0, latent.nope_dim));
  copy_rows(columns(kv, first + latent.nope_dim, latent.value_dim), value);
  copy_rows(columns(qkv, latent_kv_column(spec) + latent.kv_rank, latent.rope_dim),
            part(key, 0, key.rows, latent.nope_dim, latent.rope_dim));
}

/// What happens to a query or key head between projection and scores.
void Transformer::turn(std::size_t layer, const Pass::Block& block, const std::vector<float>& norm_weight,
                       Rows<float> head) const {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  if (spec.qk_norm == QkNorm::kPerHead) kernels_.rms_norm(head, norm_weight.data(), spec_.norm_eps, head);
  clip(head, spec.clip);
  if (const RopeTable* rope = rope_of_layer_[layer]) {
    const std::int64_t first = spec.latent ? spec.latent->nope_dim : 0;
    kernels_.rope(part(head, 0, head.rows, first, head.cols - first), rope->data(block.cache->text()), rope->half(),
                  pass_.positions.data() + block.first_row);
  }
  if (spec.qk_norm == QkNorm::kPerHeadAfterRope) kernels_.rms_norm(head, norm_weight.data(), spec_.norm_eps, head);
  if (spec.qk_norm == QkNorm::kL2AfterRope) kernels_.rms_norm(head, ones_.data(), spec_.norm_eps, head);
}

void Transformer::sharpen(const TemperatureSpec& temperature, const Pass::Block& block, Rows<float> query) const {
  for (std::int64_t t = 0; t < query.rows; ++t) {
    const auto position = static_cast<float>(pass_.positions[static_cast<std::size_t>(block.first_row + t)]);
    const float periods = std::floor((position + 1.0F) / static_cast<float>(temperature.floor));
    scale(part(query, t, 1, 0, query.cols), std::log1p(periods) * static_cast<float>(temperature.scale) + 1.0F);
  }
}

/// Turns this kv head's keys, and appends keys and values to the cache.
void Transformer::store_head(std::size_t layer, const Pass::Block& block, int kv_head, Private& mine) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const Rows<float> key = contiguous(mine.key.data(), std::int64_t{block.rows}, std::int64_t{spec.head_dim});
  const Rows<float> value = contiguous(mine.value.data(), std::int64_t{block.rows}, std::int64_t{spec.value_dim()});
  take_head(layer, block, kv_head, key, value);
  turn(layer, block, layers_[layer]->key_norm, key);
  clip(value, spec.clip);
  static_cast<const KvStorage&>(*block.cache).put(static_cast<int>(layer), kv_head, block.first_staged, key, value);
}

/// The masks of the staged rows that a block's rows attend to.
const std::uint64_t* Transformer::seen_rows(std::size_t layer, const Pass::Block& block) const {
  return spec_.layers[layer].attention.whole_block ? pass_.whole_masks.data() + block.whole_mask
                                                   : block.cache->ancestors(block.first_staged);
}

/// Stores this kv head's keys and values, turns its queries, attends.
void Transformer::attend(std::size_t layer, const Pass::Block& block, int kv_head, Private& mine) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LayerWeights& weights = *layers_[layer];
  const std::int64_t head_dim = spec.head_dim;
  const std::int64_t value_dim = spec.value_dim();
  const std::int64_t group = spec.heads / spec.kv_heads;
  const auto& cache = static_cast<const KvStorage&>(*block.cache);
  store_head(layer, block, kv_head, mine);
  const Rows<float> query =
      part(query_heads(layer, block), 0, block.rows, kv_head * group * head_dim, group * head_dim);
  for (std::int64_t h = 0; h < group; ++h) {
    turn(layer, block, weights.query_norm, part(query, 0, query.rows, h * head_dim, head_dim));
  }
  if (spec.temperature) sharpen(*spec.temperature, block, query);
  const float* sinks = weights.sinks.empty() ? nullptr : weights.sinks.data() + kv_head * group;
  const Rows<float> attended = part(rows(workspace_.attended, spec.heads * value_dim), block.first_row, block.rows,
                                    kv_head * group * value_dim, group * value_dim);
  kernels_.tree_attention(query, cache.head(static_cast<int>(layer), kv_head), seen_rows(layer, block), cache.words(),
                          {head_dim, value_dim, spec.scale, spec.window, spec.chunk, sinks}, attended,
                          mine.attention.data());
  scale(attended, spec_.product_scale());
}

}  // namespace specmoe::nn
