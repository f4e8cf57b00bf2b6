#include "core/nn/transformer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "core/nn/model_loader.h"
#include "core/nn/model_part.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::contiguous;
using kernels::Rows;
using kernels::Shard;
using kernels::split;

namespace {

std::vector<int> count_up(std::size_t count) {
  std::vector<int> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

CpuKernels::CpuKernels(kernels::Backend backend)
    : rms_norm(kernels::rms_norm.up_to(backend)),
      layer_norm(kernels::layer_norm.up_to(backend)),
      packed_linear(kernels::packed_linear.up_to(backend)),
      rope(kernels::rope.up_to(backend)),
      tree_attention(kernels::tree_attention.up_to(backend)),
      moe_router(kernels::moe_router.up_to(backend)),
      moe_up(kernels::moe_up.up_to(backend)),
      moe_down(kernels::moe_down.up_to(backend)),
      row_argmax(kernels::row_argmax.up_to(backend)),
      linear_argmax(kernels::linear_argmax.up_to(backend)) {}

Transformer::Transformer(ModelSpec spec, Weights weights, ModelInfo info, kernels::DType kv, kernels::Backend backend,
                         std::shared_ptr<kernels::ThreadPool> pool, std::shared_ptr<const Weights> target)
    : Transformer(spec, std::make_shared<const Weights>(std::move(weights)), std::move(target),
                  count_up(spec.layers.size()), std::move(info), kv, backend, std::move(pool)) {}

Transformer::Transformer(ModelSpec spec, std::shared_ptr<const Weights> weights, std::shared_ptr<const Weights> target,
                         std::span<const int> layers, ModelInfo info, kernels::DType kv, kernels::Backend backend,
                         std::shared_ptr<kernels::ThreadPool> pool)
    : spec_(std::move(spec)),
      weights_(std::move(weights)),
      embedding_of_(target != nullptr && weights_->embedding.empty() ? target : weights_),
      head_of_(target != nullptr && weights_->head.rows() == 0 ? target : weights_),
      info_(std::move(info)),
      kv_(kv),
      backend_(backend),
      kernels_(backend),
      pool_(std::move(pool)),
      run_([this](Member& member) { run(member); }) {
  for (const int layer : layers) layers_.push_back(&weights_->layers[static_cast<std::size_t>(layer)]);
  int widest_head = 0;
  int moe_layers = 0;
  ropes_.reserve(spec_.layers.size());  // rope_of_layer_ points into it
  for (const LayerSpec& layer : spec_.layers) {
    widest_head = std::max(widest_head, layer.attention.head_dim);
    moe_index_.push_back(layer.ffn.router ? moe_layers++ : -1);
    rope_of_layer_.push_back(layer.attention.rope ? &rope_table(*layer.attention.rope) : nullptr);
  }
  ones_.assign(static_cast<std::size_t>(widest_head), 1.0F);
  workspace_.own.resize(static_cast<std::size_t>(pool_->size()));
}

/// Layers that turn alike share a table.
const RopeTable& Transformer::rope_table(const RopeSpec& spec) {
  for (const RopeTable& table : ropes_) {
    if (table.spec() == spec) return table;
  }
  return ropes_.emplace_back(spec);
}

std::unique_ptr<KVCache> Transformer::new_cache(int capacity, std::optional<int> text) const {
  auto cache = std::make_unique<KvStorage>(spec_, kv_, capacity, this, text.value_or(capacity));
  for (RopeTable& rope : ropes_) rope.reserve(std::min(capacity, spec_.max_positions), cache->text());
  return cache;
}

void Transformer::forward(std::span<const RowBlock> blocks, ForwardResult& result) {
  pass_.check(spec_, this, blocks, result.taps);
  std::int64_t rows = 0;
  std::int64_t positions = 0;
  for (const RowBlock& block : blocks) {
    rows += static_cast<std::int64_t>(block.tokens.size());
    positions = std::max<std::int64_t>(positions, block.cache->capacity());
  }
  workspace_.reserve(spec_, rows, positions);
  pass_.stage(blocks);
  if (spec_.fusion && spec_.fusion->block_size > 0) pass_.mask_whole_blocks();
  pass_.size_result(spec_, result);
  result_ = &result;
  if (rows > 0) pool_->run(run_);
}

std::shared_ptr<LanguageModel> Transformer::partial(const ModelPart& part) const {
  auto [spec, layers] = part_of(spec_, part);
  ModelInfo info = describe_model(spec, weights_->dtype, kv_, weights_->embedding.empty());
  info.instruction_set = info_.instruction_set;
  return std::shared_ptr<LanguageModel>(
      new Transformer(std::move(spec), weights_, nullptr, layers, std::move(info), kv_, backend_, pool_));
}

/// One thread for a small head, unless this model is small too and keeps its threads (LoadOptions::keep_threads).
std::shared_ptr<kernels::ThreadPool> Transformer::pool_of_head(std::int64_t weight_bytes) const {
  const bool kept = fitting_pool(info_.weight_bytes, pool_) != pool_;
  return kept ? pool_ : fitting_pool(weight_bytes, pool_);
}

void Transformer::run(Member& member) {
  const bool proposes_blocks = spec_.fusion && spec_.fusion->block_size > 0;
  if (proposes_blocks && pass_.has_features()) return cache_context(member);
  if (spec_.fusion && !proposes_blocks) {
    fuse(member);
  } else {
    embed(member.shard());
  }
  member.barrier();
  for (std::size_t layer = 0; layer < spec_.layers.size(); ++layer) {
    tap(static_cast<int>(layer), member.shard());
    attention(layer, member);
    member.barrier();
    feed_forward(layer, member);
    member.barrier();
  }
  tap(info_.layers, member.shard());
  tap(info_.layers + 1, member.shard());
  head(member);
}

/// Copies what the boundary holds, where it is wanted. x stays as it is until every thread has come to a barrier.
void Transformer::tap(int boundary, Shard shard) {
  const std::int64_t hidden = spec_.hidden_size;
  const Rows<float> x = rows(workspace_.x, hidden);
  const auto taps = static_cast<std::int64_t>(result_->taps.size());
  const auto range = split(x.rows, shard);
  for (std::int64_t i = 0; i < taps; ++i) {
    if (result_->taps[static_cast<std::size_t>(i)] != boundary) continue;
    for (std::int64_t t = range.begin; t < range.end; ++t) {
      const Rows<float> to = contiguous(result_->tapped.data() + (t * taps + i) * hidden, 1, hidden);
      const Rows<const float> row = contiguous(x.row(t), 1, hidden);
      if (boundary > info_.layers) {
        normalise(row, weights_->final_norm, to);
      } else {
        std::copy_n(row.data, hidden, to.data);
      }
    }
  }
}

void Transformer::embed(Shard shard) {
  const auto range = split(static_cast<std::int64_t>(pass_.tokens.size()), shard);
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  for (std::int64_t t = range.begin; t < range.end; ++t) {
    embedding_of_->embed(pass_.tokens[static_cast<std::size_t>(t)], x.row(t));
    if (spec_.embedding_scale == 1.0F) continue;
    for (std::int64_t d = 0; d < x.cols; ++d) x.row(t)[d] *= spec_.embedding_scale;
  }
}

/// A norm without weights, which some draft heads have in places, leaves the rows as they are.
void Transformer::normalise(Rows<const float> x, const NormWeights& weights, Rows<float> out) const {
  if (weights.weight.empty()) {
    for (std::int64_t t = 0; t < x.rows; ++t) std::copy_n(x.row(t), x.cols, out.row(t));
  } else if (spec_.norm == NormKind::kLayer) {
    kernels_.layer_norm(x, weights.weight.data(), weights.bias.data(), spec_.norm_eps, out);
  } else {
    kernels_.rms_norm(x, weights.weight.data(), spec_.norm_eps, out);
  }
}

Rows<const float> Transformer::norm(const NormWeights& weights, Private& mine) const {
  const Rows<float> normed = rows(mine.normed, spec_.hidden_size);
  normalise(rows(workspace_.x, spec_.hidden_size), weights, normed);
  return normed;
}

/// x += norm(branch), once all of the branch is there: each thread takes some of the rows.
void Transformer::add_normed_branch(const NormWeights& weights, Member& member) {
  member.barrier();
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  const Rows<float> branch = rows(workspace_.branch, spec_.hidden_size);
  const auto range = split(x.rows, member.shard());
  for (std::int64_t t = range.begin; t < range.end; ++t) {
    const Rows<float> row = contiguous(branch.row(t), 1, branch.cols);
    normalise(row, weights, row);
    for (std::int64_t d = 0; d < x.cols; ++d) x.row(t)[d] += spec_.residual_scale * row.data[d];
  }
}

void Transformer::head(Member& member) {
  if (pass_.wanted.empty()) return;
  Private& mine = own(member.shard());
  const auto count = static_cast<std::int64_t>(pass_.wanted.size());
  const Rows<float> normed = contiguous(mine.normed.data(), count, std::int64_t{spec_.hidden_size});
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  for (std::int64_t i = 0; i < count; ++i) {
    const Rows<const float> row = {x.row(pass_.wanted[static_cast<std::size_t>(i)]), 1, x.cols, x.cols};
    normalise(row, weights_->final_norm, {normed.row(i), 1, x.cols, x.cols});
  }
  if (result_->want_logits) {
    logits(normed, member);
  } else {
    argmaxes(normed, member);
  }
}

void Transformer::logits(Rows<const float> normed, Member& member) {
  const Rows<float> out = contiguous(result_->logits.data(), normed.rows, std::int64_t{spec_.vocab_size});
  const bool spreads = !weights_->fusion.token_of_draft.empty();
  const Rows<float> product =
      spreads ? contiguous(workspace_.draft_logits.data(), normed.rows, std::int64_t{spec_.head_rows()}) : out;
  kernels_.packed_linear(normed, head_of_->head, data_or_null(head_of_->head_bias), {}, product,
                         head_of_->head.share(member.shard()));
  member.barrier();
  const auto own_rows = split(normed.rows, member.shard());
  if (own_rows.begin == own_rows.end) return;
  for (std::int64_t i = own_rows.begin; spreads && i < own_rows.end; ++i) spread(product.row(i), out.row(i));
  for (std::int64_t i = own_rows.begin; i < own_rows.end; ++i) logit_shape().apply(out.row(i), out.cols);
  kernels_.row_argmax({out.row(own_rows.begin), own_rows.end - own_rows.begin, out.cols, out.stride},
                      result_->argmax.data() + own_rows.begin);
}

/// Gives the logits of a smaller vocabulary their places; the other tokens are impossible.
void Transformer::spread(const float* draft_logits, float* logits) const {
  std::fill_n(logits, spec_.vocab_size, -std::numeric_limits<float>::infinity());
  const std::vector<TokenId>& token_of = weights_->fusion.token_of_draft;
  for (std::size_t i = 0; i < token_of.size(); ++i) logits[token_of[i]] = draft_logits[i];
}

/// Every thread finds the best of its own outputs; then the first one compares.
void Transformer::argmaxes(Rows<const float> normed, Member& member) {
  kernels_.linear_argmax(normed, head_of_->head, data_or_null(head_of_->head_bias), logit_shape(),
                         own(member.shard()).best.data(), member.shard());
  member.barrier();
  if (member.shard().index != 0) return;
  for (std::size_t i = 0; i < result_->argmax.size(); ++i) {
    kernels::BestLogit best;
    for (const Private& thread : workspace_.own) best.offer(thread.best[i]);
    const std::vector<TokenId>& token_of = weights_->fusion.token_of_draft;
    const bool draft_token = !token_of.empty() && best.index >= 0;
    result_->argmax[i] = draft_token ? token_of[static_cast<std::size_t>(best.index)] : best.index;
  }
}

}  // namespace specmoe::nn
