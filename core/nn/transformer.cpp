#include "core/nn/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"

namespace specmoe::nn {

using kernels::contiguous;
using kernels::Rows;
using kernels::Shard;
using kernels::split;

CpuKernels::CpuKernels(kernels::Backend backend)
    : rms_norm(kernels::rms_norm.up_to(backend)),
      packed_linear(kernels::packed_linear.up_to(backend)),
      rope(kernels::rope.up_to(backend)),
      tree_attention(kernels::tree_attention.up_to(backend)),
      moe_router(kernels::moe_router.up_to(backend)),
      moe_up(kernels::moe_up.up_to(backend)),
      moe_down(kernels::moe_down.up_to(backend)),
      row_argmax(kernels::row_argmax.up_to(backend)) {}

Transformer::Transformer(ModelSpec spec, Weights weights, ModelInfo info, kernels::Backend backend,
                         std::shared_ptr<kernels::ThreadPool> pool)
    : spec_(std::move(spec)),
      weights_(std::move(weights)),
      info_(std::move(info)),
      kernels_(backend),
      pool_(std::move(pool)),
      run_([this](Member& member) { run(member); }) {
  for (const LayerSpec& layer : spec_.layers) {
    const auto same = std::find_if(ropes_.begin(), ropes_.end(),
                                   [&](const RopeTable& table) { return table.spec() == *layer.attention.rope; });
    rope_of_layer_.push_back(static_cast<std::size_t>(same - ropes_.begin()));
    if (same == ropes_.end()) ropes_.emplace_back(*layer.attention.rope);
    moe_index_.push_back(layer.ffn.router ? moe_layers_++ : -1);
  }
  workspace_.own.resize(static_cast<std::size_t>(pool_->size()));
}

std::unique_ptr<KVCache> Transformer::new_cache(int capacity) const {
  auto cache = std::make_unique<KvStorage>(spec_, capacity, this);
  for (RopeTable& rope : ropes_) rope.reserve(std::min(capacity, spec_.max_positions));
  return cache;
}

void Transformer::forward(std::span<const RowBlock> blocks, ForwardResult& result) {
  pass_.check(spec_, this, blocks);
  std::int64_t rows = 0;
  std::int64_t positions = 0;
  for (const RowBlock& block : blocks) {
    rows += static_cast<std::int64_t>(block.tokens.size());
    positions = std::max<std::int64_t>(positions, block.cache->capacity());
  }
  workspace_.reserve(spec_, rows, positions);
  pass_.stage(blocks);
  prepare(result);
  result_ = &result;
  if (rows > 0) pool_->run(run_);
}

void Transformer::prepare(ForwardResult& result) const {
  const auto wanted = pass_.wanted.size();
  const auto rows = pass_.tokens.size();
  result.vocab = spec_.vocab_size;
  result.row_begin = pass_.row_begin;
  result.logits.resize(wanted * static_cast<std::size_t>(spec_.vocab_size));
  result.argmax.resize(wanted);
  if (result.want_hidden) result.hidden.resize(wanted * static_cast<std::size_t>(spec_.hidden_size));
  result.moe_layers = moe_layers_;
  result.moe_rows = static_cast<int>(rows);
  const auto choices = static_cast<std::size_t>(moe_layers_) * static_cast<std::size_t>(info_.experts_per_token);
  result.experts.resize(result.want_experts ? rows * choices : 0);
}

void Transformer::run(Member& member) {
  embed(member.shard());
  member.barrier();
  for (std::size_t layer = 0; layer < spec_.layers.size(); ++layer) {
    attention(layer, member);
    member.barrier();
    feed_forward(layer, member);
    member.barrier();
  }
  logits(member);
}

void Transformer::embed(Shard shard) {
  const auto range = split(static_cast<std::int64_t>(pass_.tokens.size()), shard);
  for (std::int64_t t = range.begin; t < range.end; ++t) {
    weights_.embed(pass_.tokens[static_cast<std::size_t>(t)], rows(workspace_.x, spec_.hidden_size).row(t));
  }
}

Rows<const float> Transformer::norm(const float* weight, Private& mine) const {
  const Rows<float> normed = rows(mine.normed, spec_.hidden_size);
  kernels_.rms_norm(rows(workspace_.x, spec_.hidden_size), weight, spec_.norm_eps, normed);
  return normed;
}

void Transformer::attention(std::size_t layer, Member& member) {
  const LayerWeights& weights = weights_.layers[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  Private& mine = own(member.shard());
  const auto bias = [](const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); };

  const Rows<const float> normed = norm(weights.attention_norm.data(), mine);
  kernels_.packed_linear(normed, weights.qkv, bias(weights.qkv_bias), {}, rows(workspace_.qkv, weights.qkv.rows()),
                         member.shard());
  member.barrier();
  const auto heads = split(static_cast<std::int64_t>(pass_.blocks.size()) * spec.kv_heads, member.shard());
  for (std::int64_t i = heads.begin; i < heads.end; ++i) {
    attend(layer, pass_.blocks[static_cast<std::size_t>(i / spec.kv_heads)], static_cast<int>(i % spec.kv_heads), mine);
  }
  member.barrier();
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  kernels_.packed_linear(rows(workspace_.attended, weights.output.cols()), weights.output, bias(weights.output_bias), x,
                         x, member.shard());
}

/// Turns this kv head's queries and keys, appends keys and values to the cache, attends.
void Transformer::attend(std::size_t layer, const Pass::Block& block, int kv_head, Private& mine) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const RopeTable& rope = ropes_[rope_of_layer_[layer]];
  const std::int64_t head_dim = spec.head_dim;
  const std::int64_t group = spec.heads / spec.kv_heads;
  const std::int64_t stride = (spec.heads + 2 * spec.kv_heads) * head_dim;
  float* first = workspace_.qkv.data() + block.first_row * stride;
  const std::int32_t* positions = pass_.positions.data() + block.first_row;
  const auto head = [&](std::int64_t index) {
    return Rows<float>{first + index * head_dim, block.rows, head_dim, stride};
  };

  for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    kernels_.rope(head(h), rope.data(), rope.half(), positions);
  }
  const Rows<float> key = head(spec.heads + kv_head);
  const Rows<float> value = head(spec.heads + spec.kv_heads + kv_head);
  kernels_.rope(key, rope.data(), rope.half(), positions);
  const KvStorage& cache = *block.cache;
  float* keys = cache.keys(static_cast<int>(layer), kv_head);
  float* values = cache.values(static_cast<int>(layer), kv_head);
  for (std::int64_t t = 0; t < block.rows; ++t) {
    const std::int64_t at = (cache.committed() + block.first_staged + t) * head_dim;
    std::memcpy(keys + at, key.row(t), static_cast<std::size_t>(head_dim) * sizeof(float));
    std::memcpy(values + at, value.row(t), static_cast<std::size_t>(head_dim) * sizeof(float));
  }
  const Rows<const float> query = {head(kv_head * group).data, block.rows, group * head_dim, stride};
  const std::int64_t width = spec.heads * head_dim;
  float* attended = workspace_.attended.data() + block.first_row * width + kv_head * group * head_dim;
  kernels_.tree_attention(query, {keys, values, head_dim, cache.committed()}, cache.staged(),
                          cache.ancestors(block.first_staged), cache.words(), cache.depths() + block.first_staged,
                          cache.depths(), spec.window, spec.scale, head_dim,
                          {attended, block.rows, group * head_dim, width}, mine.attention.data());
}

void Transformer::route(std::size_t layer, Rows<const float> normed, Private& mine, bool record) {
  const FfnSpec& spec = spec_.layers[layer].ffn;
  if (!spec.router) {
    std::fill_n(mine.expert.begin(), normed.rows, 0);
    std::fill_n(mine.expert_weight.data(), normed.rows, 1.0F);
    mine.plan.build(mine.expert.data(), normed.rows, 1, 1);
    return;
  }
  const int k = spec.router->experts_per_token;
  const Rows<float> logits = rows(mine.router_logits, spec.router->experts);
  kernels_.packed_linear(normed, weights_.layers[layer].ffn.router, nullptr, {}, logits, Shard{});
  kernels_.moe_router(logits, k, spec.router->renormalise, mine.expert.data(), mine.expert_weight.data());
  mine.plan.build(mine.expert.data(), normed.rows, k, spec.router->experts);
  if (record && result_->want_experts) {
    const std::int64_t pairs = normed.rows * k;
    std::copy_n(mine.expert.data(), pairs, result_->experts.data() + moe_index_[layer] * pairs);
  }
}

void Transformer::feed_forward(std::size_t layer, Member& member) {
  const FfnSpec& spec = spec_.layers[layer].ffn;
  const LayerWeights& weights = weights_.layers[layer];
  const Shard shard = member.shard();
  Private& mine = own(shard);
  const Rows<const float> normed = norm(weights.ffn_norm.data(), mine);
  if (spec.bias) return biased_ffn(layer, normed, member);

  route(layer, normed, mine, shard.index == 0);
  const std::int64_t pairs = normed.rows * mine.plan.k;
  const Rows<float> hidden = contiguous(workspace_.hidden.data(), pairs, spec.width);
  kernels_.moe_up(normed, weights.ffn.gate_up.data(), mine.plan, hidden, shard);
  member.barrier();
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  kernels_.moe_down(hidden, weights.ffn.down.data(), mine.plan, mine.expert_weight.data(), x,
                    contiguous(workspace_.down.data(), pairs, spec_.hidden_size), x, shard);
}

void Transformer::biased_ffn(std::size_t layer, Rows<const float> normed, Member& member) {
  const FfnWeights& weights = weights_.layers[layer].ffn;
  const std::int64_t width = spec_.layers[layer].ffn.width;
  const Shard shard = member.shard();
  const Rows<float> gate = rows(workspace_.hidden, width);
  const Rows<float> up = rows(workspace_.up, width);
  kernels_.packed_linear(normed, weights.gate, weights.gate_bias.data(), {}, gate, shard);
  kernels_.packed_linear(normed, weights.up, weights.up_bias.data(), {}, up, shard);
  // This thread's own columns: those it has just written.
  const auto columns = split(width, shard, kernels::PackedMatrix::kPanel);
  for (std::int64_t t = 0; t < normed.rows; ++t) {
    for (std::int64_t n = columns.begin; n < columns.end; ++n) {
      const float g = gate.row(t)[n];
      gate.row(t)[n] = g / (1.0F + std::exp(-g)) * up.row(t)[n];
    }
  }
  member.barrier();
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  kernels_.packed_linear(gate, weights.down.front(), weights.down_bias.data(), x, x, shard);
}

void Transformer::logits(Member& member) {
  if (pass_.wanted.empty()) return;
  Private& mine = own(member.shard());
  const auto count = static_cast<std::int64_t>(pass_.wanted.size());
  const Rows<float> normed = contiguous(mine.normed.data(), count, std::int64_t{spec_.hidden_size});
  const Rows<float> x = rows(workspace_.x, spec_.hidden_size);
  for (std::int64_t i = 0; i < count; ++i) {
    const Rows<const float> row = {x.row(pass_.wanted[static_cast<std::size_t>(i)]), 1, x.cols, x.cols};
    kernels_.rms_norm(row, weights_.final_norm.data(), spec_.norm_eps, {normed.row(i), 1, x.cols, x.cols});
  }
  if (member.shard().index == 0 && result_->want_hidden) {
    std::copy_n(normed.data, count * normed.cols, result_->hidden.data());
  }
  const Rows<float> out = contiguous(result_->logits.data(), count, std::int64_t{spec_.vocab_size});
  kernels_.packed_linear(normed, weights_.head, nullptr, {}, out, member.shard());
  member.barrier();
  const auto own_rows = split(count, member.shard());
  if (own_rows.begin == own_rows.end) return;
  kernels_.row_argmax({out.row(own_rows.begin), own_rows.end - own_rows.begin, out.cols, out.stride},
                      result_->argmax.data() + own_rows.begin);
}

}  // namespace specmoe::nn
