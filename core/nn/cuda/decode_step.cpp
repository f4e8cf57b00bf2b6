#include "core/nn/cuda/decode_step.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::AttentionTile;
using kernels::cuda::RowCount;

namespace {

int round_up_to_power(int n) { return static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::max(n, 1)))); }

int chunks_of(int positions) {
  return (positions + kernels::cuda::kAttentionChunk - 1) / kernels::cuda::kAttentionChunk;
}

int heads_per_kv_head(const DeviceLayer& layer) { return layer.attention.heads / layer.attention.kv_heads; }

}  // namespace

DecodeStep::DecodeStep(DeviceModel model, Limits limits, kernels::cuda::Stream& stream,
                       kernels::cuda::DenseLinear* dense)
    : model_(std::move(model)),
      limits_{round_up_to_power(limits.rows), limits.sequences, limits.positions, limits.taps},
      stream_(stream),
      dense_(dense),
      inputs_(limits_.rows, limits_.sequences, stream.device()),
      buffers_(model_, limits_.rows, chunk_count(limits_.positions), limits_.taps, stream) {
  if (limits_.rows <= kernels::cuda::PlanSorter::kFewRows) return;
  plan_sorter_ = std::make_unique<kernels::cuda::PlanSorter>(static_cast<int>(buffers_.plan.pairs.size()), stream_);
}

DecodeStep::Size DecodeStep::upload(const DevicePass& pass) {
  const int rows = static_cast<int>(pass.tokens.size());
  const int wanted = static_cast<int>(pass.wanted.size());
  SPECMOE_CHECK(rows >= 1 && rows <= limits_.rows && static_cast<int>(pass.sequences.size()) <= limits_.sequences &&
                    pass.longest <= limits_.positions && static_cast<int>(pass.taps.size()) <= limits_.taps,
                "pass on cuda: expected at most ", limits_.rows, " rows of ", limits_.sequences, " sequences, ",
                limits_.positions, " positions and ", limits_.taps, " taps, got ", rows, " rows of ",
                pass.sequences.size(), ", ", pass.longest, " and ", pass.taps.size());
  Size size = size_of(rows, wanted, pass.longest);
  size.dense = takes_dense(pass);
  size.taps = pass.taps;

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
  if (!pass.features.empty()) upload_features(pass);
  size.context = model_.proposes_blocks() && !pass.features.empty();
  return size;
}

void DecodeStep::upload_features(const DevicePass& pass) {
  const auto rows = static_cast<std::int64_t>(pass.tokens.size());
  const std::int64_t cols = model_.feature_cols();
  copy_rows(kernels::contiguous(pass.features.data(), rows, cols), buffers_.features.view(rows, cols), stream_);
  stream_.copy(buffers_.handed_on.data(), pass.handed_on.data(), pass.handed_on.size() * sizeof(pass.handed_on[0]));
}

DecodeStep::Size DecodeStep::size_of(int rows, int wanted, int longest) {
  return {round_up_to_power(rows), wanted == 0 ? 0 : round_up_to_power(wanted), chunk_count(longest), false, false, {}};
}

bool DecodeStep::takes_dense(const DevicePass& pass) const {
  return dense_ != nullptr && static_cast<int>(pass.rows.size()) == dense_->rows() && pass.wanted.empty() &&
         pass.sequences.size() == 1 && pass.rows[0].slot % dense_->rows() == 0;
}

int DecodeStep::tile_count(int rows) { return round_up_to_power(rows); }
int DecodeStep::chunk_count(int longest) { return round_up_to_power(chunks_of(longest)); }

/// Tiles of the narrowest kind fit every layer's.
int DecodeStep::tile_rows() const {
  int group = 1;
  for (const DeviceLayer& layer : model_.layers) group = std::max(group, heads_per_kv_head(layer));
  return kernels::cuda::attention_tile_rows(group);
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
  if (size.context) return cache_context(size);
  if (model_.fusion && !model_.proposes_blocks()) {
    fuse(size);
  } else {
    embed(size, model_.embedding_scale, rows_of(buffers_.x, size, model_.hidden));
  }
  const int layers = static_cast<int>(model_.layers.size());
  for (int i = 0; i < layers; ++i) {
    const DeviceLayer& layer = model_.layers[static_cast<std::size_t>(i)];
    tap(i, size);
    attention(layer, size);
    feed_forward(layer, i, size);
  }
  tap(layers, size);
  tap(layers + 1, size);
  if (size.wanted > 0) head(size);
}

void DecodeStep::embed(const Size& size, float scale, Rows<float> out) {
  const std::int32_t* tokens = inputs_.tokens.device;
  if (model_.embedding != nullptr) {
    kernels::cuda::embed(model_.embedding, model_.embedding_dtype, tokens, all_rows(size), scale, out, stream_);
  } else {
    kernels::cuda::embed(model_.embedding_panels, tokens, all_rows(size), scale, out, stream_);
  }
}

/// Copies what the boundary holds, where it is wanted.
void DecodeStep::tap(int boundary, const Size& size) {
  const auto taps = static_cast<std::int64_t>(size.taps.size());
  const Rows<float> x = rows_of(buffers_.x, size, model_.hidden);
  const bool behind_norm = boundary > static_cast<int>(model_.layers.size());
  for (std::int64_t i = 0; i < taps; ++i) {
    if (size.taps[static_cast<std::size_t>(i)] != boundary) continue;
    const std::int64_t stride = buffers_.tapped.stride;
    const Rows<float> to = {buffers_.tapped.memory.data() + i * stride, x.rows, x.cols, taps * stride};
    normalise(x, all_rows(size), behind_norm ? model_.final_norm : kernels::cuda::DeviceNorm{}, to);
  }
}

Rows<float> DecodeStep::tapped() const {
  const auto count = static_cast<std::int64_t>(last_.taps.size());
  return buffers_.tapped.view(std::int64_t{inputs_.counts.host[0]} * count, model_.hidden);
}

void DecodeStep::head(const Size& size) {
  const Rows<float> x = rows_of(buffers_.x, size, model_.hidden);
  const RowCount wanted = {size.wanted, inputs_.counts.device + 1};
  const Rows<float> last = buffers_.wanted.view(size.wanted, model_.hidden);
  const Rows<float> normed = buffers_.wanted_normed.view(size.wanted, model_.hidden);
  const Rows<float> logits = buffers_.logits.view(size.wanted, model_.vocab);
  kernels::cuda::gather_rows(x, inputs_.wanted.device, wanted, last, stream_);
  normalise(last, wanted, model_.final_norm, normed);
  const std::int32_t* places = model_.fusion ? model_.fusion->places : nullptr;
  const Rows<float> product = places == nullptr ? logits : buffers_.draft_logits.view(size.wanted, model_.head.rows);
  kernels::cuda::packed_linear(normed, wanted, model_.head, model_.head_bias, {}, product, stream_);
  if (places != nullptr) kernels::cuda::spread_logits(product, places, wanted, logits, stream_);
  kernels::cuda::shape_logits(logits, wanted, model_.logits, stream_);
  kernels::cuda::row_argmax(logits, wanted, buffers_.argmax.data(), stream_);
}

void DecodeStep::project(const Size& size, Rows<const float> x, const kernels::cuda::DeviceMatrix& weight,
                         const float* bias, Rows<const float> residual, Rows<float> out) {
  if (size.dense) return dense_->multiply(x, weight, bias, residual, out);
  kernels::cuda::packed_linear(x, all_rows(size), weight, bias, residual, out, stream_);
}

void DecodeStep::normalise(Rows<const float> x, RowCount rows, const kernels::cuda::DeviceNorm& norm, Rows<float> out) {
  if (norm.weight == nullptr) {
    kernels::cuda::gather_rows(x, nullptr, rows, out, stream_);
  } else if (norm.bias == nullptr) {
    kernels::cuda::rms_norm(x, rows, norm.weight, model_.norm_eps, out, stream_);
  } else {
    kernels::cuda::layer_norm(x, rows, norm, model_.norm_eps, out, stream_);
  }
}

}  // namespace specmoe::nn::cuda
