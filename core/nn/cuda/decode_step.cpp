#include "core/nn/cuda/decode_step.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::AttentionTile;
using kernels::cuda::DevicePlan;
using kernels::cuda::RowCount;

namespace {

constexpr int kMostGroup = 32;  // query heads per kv head, so at least one row fits a tile

int round_up_to_power(int n) { return static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::max(n, 1)))); }

int chunks_of(int positions) {
  return (positions + kernels::cuda::kAttentionChunk - 1) / kernels::cuda::kAttentionChunk;
}

/// The largest value of `of` over the layers.
template <class Of>
std::int64_t most(const DeviceModel& model, const Of& of) {
  std::int64_t largest = 1;
  for (const DeviceLayer& layer : model.layers) largest = std::max<std::int64_t>(largest, of(layer));
  return largest;
}

}  // namespace

DecodeStep::DecodeStep(DeviceModel model, Limits limits, kernels::cuda::Stream& stream,
                       kernels::cuda::DenseLinear* dense)
    : model_(std::move(model)),
      limits_{round_up_to_power(limits.rows), limits.sequences, limits.positions},
      stream_(stream),
      dense_(dense),
      inputs_(limits_.rows, limits_.sequences, stream.device()) {
  const int rows = limits_.rows;
  const int device = stream.device();
  const int chunks = chunk_count(limits_.positions);
  const auto qkv = [](const DeviceLayer& layer) { return layer.qkv.rows; };
  const auto attended = [](const DeviceLayer& layer) { return layer.output.cols; };
  const auto experts = [](const DeviceLayer& layer) { return layer.gate_up.experts; };
  const std::int64_t k = most(model_, [](const DeviceLayer& layer) { return layer.experts_per_token; });
  const std::int64_t inner = most(model_, [](const DeviceLayer& layer) { return layer.inner; });
  const std::int64_t kv_heads = most(model_, [](const DeviceLayer& layer) { return layer.attention.kv_heads; });

  x_ = Buffer(rows, model_.hidden, device);
  normed_ = Buffer(rows, model_.hidden, device);
  qkv_ = Buffer(rows, most(model_, qkv), device);
  attended_ = Buffer(rows, most(model_, attended), device);
  router_logits_ = Buffer(rows, most(model_, experts), device);
  hidden_ = Buffer(rows * k, inner, device);
  down_ = Buffer(rows * k, model_.hidden, device);
  wanted_rows_ = Buffer(rows, model_.hidden, device);
  wanted_normed_ = Buffer(rows, model_.hidden, device);
  logits_ = Buffer(rows, model_.vocab, device);
  expert_weight_ = kernels::cuda::DeviceArray<float>(rows * k, device);
  attention_scratch_ = kernels::cuda::DeviceArray<float>(
      most(model_,
           [&](const DeviceLayer& layer) { return kernels::cuda::attention_scratch(rows, layer.attention, chunks); }),
      device);
  argmax_ = kernels::cuda::DeviceArray<std::int32_t>(rows, device);
  plan_active_ = kernels::cuda::DeviceArray<std::int32_t>(model_.layers.size(), device);
  plan_experts_ = kernels::cuda::DeviceArray<std::int32_t>(most(model_, experts), device);
  plan_offsets_ = kernels::cuda::DeviceArray<std::int32_t>(most(model_, experts) + 1, device);
  plan_pairs_ = kernels::cuda::DeviceArray<std::int32_t>(rows * k, device);
  if (rows > kernels::cuda::PlanSorter::kFewRows) {
    plan_sorter_ = std::make_unique<kernels::cuda::PlanSorter>(static_cast<int>(rows * k), stream_);
  }
  std::size_t chosen = 0;
  for (const DeviceLayer& layer : model_.layers) {
    SPECMOE_CHECK(layer.attention.heads <= kMostGroup * layer.attention.kv_heads,
                  "attention on cuda: expected at most ", kMostGroup, " query heads per kv head, got ",
                  layer.attention.heads, " for ", layer.attention.kv_heads);
    expert_offset_.push_back(chosen);
    chosen += static_cast<std::size_t>(rows) * static_cast<std::size_t>(layer.experts_per_token);
  }
  experts_ = kernels::cuda::DeviceArray<std::int32_t>(chosen, device);
  attention_counters_ = kernels::cuda::DeviceArray<unsigned>(rows * kv_heads, device);
  down_counters_ = kernels::cuda::DeviceArray<unsigned>((model_.hidden + 15) / 16, device);
  stream_.zero(attention_counters_.data(), attention_counters_.size() * sizeof(unsigned));
  stream_.zero(down_counters_.data(), down_counters_.size() * sizeof(unsigned));
}

DecodeStep::Size DecodeStep::upload(const DevicePass& pass) {
  const int rows = static_cast<int>(pass.tokens.size());
  const int wanted = static_cast<int>(pass.wanted.size());
  SPECMOE_CHECK(rows >= 1 && rows <= limits_.rows && static_cast<int>(pass.sequences.size()) <= limits_.sequences &&
                    pass.longest <= limits_.positions,
                "pass on cuda: expected at most ", limits_.rows, " rows of ", limits_.sequences, " sequences and ",
                limits_.positions, " positions, got ", rows, " rows of ", pass.sequences.size(), " and ", pass.longest);
  Size size = size_of(rows, wanted, pass.longest);
  size.dense = takes_dense(pass);

  // Neighbours of one sequence, the rest of the list unused.
  const int most_of_tile = tile_rows();
  AttentionTile* all = inputs_.tiles.host;
  std::fill_n(all, size.rows, AttentionTile{});
  int tiles = 0;
  for (int t = 0; t < rows; ++t) {
    const bool joins =
        t > 0 && pass.rows[t].sequence == pass.rows[t - 1].sequence && all[tiles - 1].rows < most_of_tile;
    if (joins) {
      ++all[tiles - 1].rows;
    } else {
      all[tiles++] = {t, 1};
    }
  }
  inputs_.counts.host[0] = rows;
  inputs_.counts.host[1] = wanted;
  std::copy(pass.tokens.begin(), pass.tokens.end(), inputs_.tokens.host);
  std::copy(pass.wanted.begin(), pass.wanted.end(), inputs_.wanted.host);
  std::copy(pass.rows.begin(), pass.rows.end(), inputs_.rows.host);
  std::copy(pass.sequences.begin(), pass.sequences.end(), inputs_.sequences.host);
  inputs_.upload(stream_);
  return size;
}

DecodeStep::Size DecodeStep::size_of(int rows, int wanted, int longest) {
  return {round_up_to_power(rows), wanted == 0 ? 0 : round_up_to_power(wanted), chunk_count(longest)};
}

bool DecodeStep::takes_dense(const DevicePass& pass) const {
  return dense_ != nullptr && static_cast<int>(pass.rows.size()) == dense_->rows() && pass.wanted.empty() &&
         pass.sequences.size() == 1 && pass.rows[0].slot % dense_->rows() == 0;
}

int DecodeStep::tile_count(int rows) { return round_up_to_power(rows); }
int DecodeStep::chunk_count(int longest) { return round_up_to_power(chunks_of(longest)); }

/// Tiles of the narrowest kind fit every layer's.
int DecodeStep::tile_rows() const {
  return kernels::cuda::attention_tile_rows(static_cast<int>(
      most(model_, [](const DeviceLayer& layer) { return layer.attention.heads / layer.attention.kv_heads; })));
}

void DecodeStep::queue_written(int rows, int wanted, int longest) {
  SPECMOE_CHECK(rows >= 1 && rows <= limits_.rows && longest <= limits_.positions, "pass on cuda: expected at most ",
                limits_.rows, " rows and ", limits_.positions, " positions, got ", rows, " and ", longest);
  queue(size_of(rows, wanted, longest));
}

void DecodeStep::run(const DevicePass& pass) {
  last_ = upload(pass);
  run_again();
}

void DecodeStep::run_again() {
  kernels::cuda::Graph& graph = graphs_[last_];
  if (!graph.recorded()) graph.record(stream_, [&] { queue(last_); });
  graph.launch(stream_);
}

void DecodeStep::run_directly(const DevicePass& pass) {
  last_ = upload(pass);
  queue(last_);
}

void DecodeStep::queue(const Size& size) {
  const RowCount rows = {size.rows, inputs_.counts.device};
  const Rows<float> x = x_.view(size.rows, model_.hidden);
  kernels::cuda::embed(model_.embedding, model_.embedding_dtype, inputs_.tokens.device, rows, x, stream_);
  for (std::size_t i = 0; i < model_.layers.size(); ++i) {
    attention(model_.layers[i], size, rows);
    feed_forward(model_.layers[i], static_cast<int>(i), rows);
  }
  if (size.wanted == 0) return;
  const RowCount wanted = {size.wanted, inputs_.counts.device + 1};
  const Rows<float> last = wanted_rows_.view(size.wanted, model_.hidden);
  const Rows<float> normed = wanted_normed_.view(size.wanted, model_.hidden);
  const Rows<float> logits = logits_.view(size.wanted, model_.vocab);
  kernels::cuda::gather_rows(x, inputs_.wanted.device, wanted, last, stream_);
  kernels::cuda::rms_norm(last, wanted, model_.final_norm, model_.norm_eps, normed, stream_);
  kernels::cuda::packed_linear(normed, wanted, model_.head, nullptr, {}, logits, stream_);
  kernels::cuda::row_argmax(logits, wanted, argmax_.data(), stream_);
}

void DecodeStep::project(const Size& size, Rows<const float> x, const kernels::cuda::DeviceMatrix& weight,
                         const float* bias, Rows<const float> residual, Rows<float> out) {
  if (size.dense) return dense_->multiply(x, weight, bias, residual, out);
  kernels::cuda::packed_linear(x, {size.rows, inputs_.counts.device}, weight, bias, residual, out, stream_);
}

void DecodeStep::attention(const DeviceLayer& layer, const Size& size, RowCount rows) {
  const Rows<float> x = x_.view(rows.most, model_.hidden);
  const Rows<float> normed = normed_.view(rows.most, model_.hidden);
  const Rows<float> qkv = qkv_.view(rows.most, layer.qkv.rows);
  const Rows<float> attended = attended_.view(rows.most, layer.output.cols);
  kernels::cuda::rms_norm(x, rows, layer.attention_norm, model_.norm_eps, normed, stream_);
  project(size, normed, layer.qkv, layer.qkv_bias, {}, qkv);
  kernels::cuda::HeadNorms head_norms;
  if (layer.flat_norms) {
    const std::int64_t queries = std::int64_t{layer.attention.heads} * layer.attention.head_dim;
    const std::int64_t keys = std::int64_t{layer.attention.kv_heads} * layer.attention.head_dim;
    const Rows<float> query = {qkv.data, qkv.rows, queries, qkv.stride};
    const Rows<float> key = {qkv.data + queries, qkv.rows, keys, qkv.stride};
    kernels::cuda::rms_norm(query, rows, layer.query_norm, model_.norm_eps, query, stream_);
    kernels::cuda::rms_norm(key, rows, layer.key_norm, model_.norm_eps, key, stream_);
  } else {
    head_norms = {layer.query_norm, layer.key_norm, model_.norm_eps};
  }
  kernels::cuda::rope_append(qkv, rows, inputs_.rows.device, inputs_.sequences.device, layer.attention, head_norms,
                             layer.cos_sin, layer.half, stream_);
  kernels::cuda::tree_attention(qkv, inputs_.tiles.device, size.rows, inputs_.rows.device, inputs_.sequences.device,
                                layer.attention, size.chunks, attention_scratch_.data(), attention_counters_.data(),
                                attended, stream_);
  project(size, attended, layer.output, layer.output_bias, x, x);
}

void DecodeStep::feed_forward(const DeviceLayer& layer, int index, RowCount rows) {
  const int k = layer.experts_per_token;
  const Rows<float> x = x_.view(rows.most, model_.hidden);
  const Rows<float> normed = normed_.view(rows.most, model_.hidden);
  const Rows<float> hidden = hidden_.view(std::int64_t{rows.most} * k, layer.inner);
  const DevicePlan plan = {k, plan_active_.data() + index, plan_experts_.data(), plan_offsets_.data(),
                           plan_pairs_.data()};
  kernels::cuda::rms_norm(x, rows, layer.ffn_norm, model_.norm_eps, normed, stream_);
  if (layer.router.rows == 0) {
    kernels::cuda::route_to_one(rows, expert_weight_.data(), plan, stream_);
  } else {
    const Rows<float> logits = router_logits_.view(rows.most, layer.router.rows);
    kernels::cuda::packed_linear(normed, rows, layer.router, nullptr, {}, logits, stream_);
    kernels::cuda::route(logits, rows, layer.renormalise, experts_.data() + expert_offset_[index],
                         expert_weight_.data(), plan, stream_, plan_sorter_.get());
  }
  kernels::cuda::moe_up(normed, rows, layer.gate_up, plan, hidden, stream_);
  kernels::cuda::moe_down(hidden, rows, layer.down, plan, expert_weight_.data(), x,
                          down_.view(std::int64_t{rows.most} * k, model_.hidden), down_counters_.data(), x, stream_);
}

}  // namespace specmoe::nn::cuda
