#include "core/nn/cuda/decode_step.h"

// What a draft head does before and inside its layer that other models do not: see FusionSpec.
namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::RowCount;

/// The rows that enter the layer, each a token and its features.
void DecodeStep::fuse(const Size& size) {
  const DeviceFusion& fusion = *model_.fusion;
  const RowCount rows = all_rows(size);
  const std::int64_t hidden = model_.hidden;
  const bool wide = fusion.spec.wide_attention;
  const Rows<float> x = rows_of(buffers_.x, size, hidden);
  const Rows<float> input = rows_of(buffers_.fusion_input, size, fusion.fc.cols);
  const Rows<float> embedded = columns(wide ? rows_of(buffers_.wide, size, 2 * hidden) : input, 0, hidden);
  embed(size, 1.0F, embedded);
  if (fusion.spec.normed_embedding) normalise(embedded, rows, {fusion.embedding_norm}, embedded);
  put_features(size, wide ? input : columns(input, hidden, input.cols - hidden));
  kernels::cuda::packed_linear(input, rows, fusion.fc, fusion.bias, {}, x, stream_);
  if (wide) {  // rows that EAGLE-3 handed on are the stream already
    kernels::cuda::copy_marked_rows(rows_of(buffers_.features, size, model_.feature_cols()), buffers_.handed_on.data(),
                                    rows, x, stream_);
  }
  if (fusion.spec.normed_residual) normalise(x, rows, model_.layers[0].attention_norm, x);
}

/// Caches keys and values of rows that the target has been at (FusionSpec::block_size).
void DecodeStep::cache_context(const Size& size) {
  const DeviceFusion& fusion = *model_.fusion;
  const Rows<float> features = rows_of(buffers_.features, size, model_.feature_cols());
  const Rows<float> x = rows_of(buffers_.x, size, model_.hidden);
  const Rows<float> context = rows_of(buffers_.normed, size, model_.hidden);
  kernels::cuda::packed_linear(columns(features, 0, fusion.fc.cols), all_rows(size), fusion.fc, fusion.bias, {}, x,
                               stream_);
  normalise(x, all_rows(size), {fusion.feature_norm}, context);
  for (const DeviceLayer& layer : model_.layers) append_heads(layer, context, size);
}

/// Copies every row's features, normed where they are.
void DecodeStep::put_features(const Size& size, Rows<float> to) {
  const DeviceFusion& fusion = *model_.fusion;
  const Rows<float> features = rows_of(buffers_.features, size, model_.feature_cols());
  const bool each = fusion.spec.feature_norm == FeatureNorm::kEach;
  const std::int64_t piece = each ? fusion.spec.tap_size : to.cols;
  for (std::int64_t first = 0; first < to.cols; first += piece) {
    const float* weight = fusion.feature_norm == nullptr ? nullptr : fusion.feature_norm + first;
    normalise(columns(features, first, piece), all_rows(size), {weight}, columns(to, first, piece));
  }
}

/// The normed stream, behind the normed embeddings where attention reads both.
Rows<const float> DecodeStep::attention_input(const DeviceLayer& layer, const Size& size) {
  const bool wide = model_.fusion && model_.fusion->spec.wide_attention;
  const Rows<float> all = rows_of(wide ? buffers_.wide : buffers_.normed, size, (wide ? 2 : 1) * model_.hidden);
  const Rows<float> stream = wide ? columns(all, model_.hidden, model_.hidden) : all;
  const bool normed_before = wide && model_.fusion->spec.normed_residual;
  normalise(rows_of(buffers_.x, size, model_.hidden), all_rows(size),
            normed_before ? kernels::cuda::DeviceNorm{} : layer.attention_norm, stream);
  return all;
}

}  // namespace specmoe::nn::cuda
