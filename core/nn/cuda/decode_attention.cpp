#include "core/nn/cuda/decode_step.h"

namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::HeadInputs;
using kernels::cuda::RowCount;

void DecodeStep::attention(const DeviceLayer& layer, const Size& size) {
  const Rows<float> x = rows_of(buffers_.x, size, model_.hidden);
  const Rows<float> attended = rows_of(buffers_.attended, size, layer.output.cols);
  const Rows<float> queries = append_heads(layer, attention_input(layer, size), size);
  kernels::cuda::tree_attention(queries, inputs_.tiles.device, size.rows, inputs_.rows.device, inputs_.sequences.device,
                                layer.attention, size.chunks, buffers_.attention.data(),
                                buffers_.attention_counters.data(), attended, stream_);
  if (layer.attention_out_norm.weight == nullptr) {
    project(size, attended, layer.output, layer.output_bias, x, x);
    return;
  }
  const Rows<float> branch = rows_of(buffers_.branch, size, model_.hidden);
  project(size, attended, layer.output, layer.output_bias, {}, branch);
  kernels::cuda::add_normed(branch, all_rows(size), layer.attention_out_norm, model_.norm_eps, model_.residual_scale, x,
                            stream_);
}

/// Projects heads, caches keys and values. Returns the queries.
Rows<float> DecodeStep::append_heads(const DeviceLayer& layer, Rows<const float> input, const Size& size) {
  project(size, input, layer.qkv, layer.qkv_bias, {}, rows_of(buffers_.qkv, size, layer.qkv.rows));
  normalise_flat(layer, size);
  return layer.plain_heads() ? append_plain(layer, size) : append_by_rule(layer, size);
}

/// All query heads as one vector, all key heads as another.
void DecodeStep::normalise_flat(const DeviceLayer& layer, const Size& size) {
  if (layer.flat_query_norm == nullptr) return;
  const std::int64_t queries = layer.attention.query_columns();
  const Rows<float> qkv = rows_of(buffers_.qkv, size, layer.qkv.rows);
  const Rows<float> query = columns(qkv, 0, queries);
  const Rows<float> key = columns(qkv, queries, layer.attention.key_columns());
  kernels::cuda::rms_norm(query, all_rows(size), layer.flat_query_norm, model_.norm_eps, query, stream_);
  kernels::cuda::rms_norm(key, all_rows(size), layer.flat_key_norm, model_.norm_eps, key, stream_);
}

/// Turns and caches queries, keys and values as they were projected. Returns the queries.
Rows<float> DecodeStep::append_plain(const DeviceLayer& layer, const Size& size) {
  const Rows<float> qkv = rows_of(buffers_.qkv, size, layer.qkv.rows);
  kernels::cuda::rope_append(qkv, all_rows(size), inputs_.rows.device, inputs_.sequences.device, layer.attention,
                             layer.heads.norms, layer.heads.cos_sin, layer.heads.half, stream_);
  return qkv;
}

/// The same for layers that ask for more.
Rows<float> DecodeStep::append_by_rule(const DeviceLayer& layer, const Size& size) {
  const HeadInputs heads = layer.latent.kv_rank > 0 ? expand_latent(layer, size) : projected(layer, size);
  kernels::cuda::append_heads(heads, all_rows(size), inputs_.rows.device, inputs_.sequences.device, layer.attention,
                              layer.heads, stream_);
  return heads.query;
}

HeadInputs DecodeStep::projected(const DeviceLayer& layer, const Size& size) const {
  const kernels::cuda::AttentionShape& shape = layer.attention;
  const std::int64_t queries = shape.query_columns();
  const std::int64_t keys = shape.key_columns();
  const Rows<float> qkv = rows_of(buffers_.qkv, size, layer.qkv.rows);
  HeadInputs heads;
  heads.query = columns(qkv, 0, queries);
  heads.key = columns(qkv, queries, keys);
  heads.key_stride = shape.head_dim;
  heads.key_dim = shape.head_dim;
  heads.value = columns(qkv, queries + keys, keys);
  heads.value_stride = shape.head_dim;
  return heads;
}

/// From the low-rank vectors to queries, and to keys with values.
HeadInputs DecodeStep::expand_latent(const DeviceLayer& layer, const Size& size) {
  const DeviceLatent& latent = layer.latent;
  const kernels::cuda::AttentionShape& shape = layer.attention;
  const RowCount rows = all_rows(size);
  const std::int64_t queries = shape.query_columns();
  const Rows<float> first = rows_of(buffers_.qkv, size, layer.qkv.rows);
  HeadInputs heads;
  if (latent.query_rank > 0) {
    const Rows<float> normed = rows_of(buffers_.query_latent, size, latent.query_rank);
    heads.query = rows_of(buffers_.query, size, queries);
    kernels::cuda::rms_norm(columns(first, 0, latent.query_rank), rows, latent.query_norm, latent.eps, normed, stream_);
    project(size, normed, latent.query_up, nullptr, {}, heads.query);
  } else {
    heads.query = columns(first, 0, queries);
  }
  const std::int64_t kv_column = latent.query_rank > 0 ? latent.query_rank : queries;
  const Rows<float> normed = rows_of(buffers_.kv_latent, size, latent.kv_rank);
  const Rows<float> kv = rows_of(buffers_.kv, size, latent.kv_up.rows);
  kernels::cuda::rms_norm(columns(first, kv_column, latent.kv_rank), rows, latent.kv_norm, latent.eps, normed, stream_);
  project(size, normed, latent.kv_up, nullptr, {}, kv);
  heads.key = kv;
  heads.key_dim = latent.nope_dim;
  heads.shared_key = columns(first, kv_column + latent.kv_rank, latent.rope_dim);
  heads.value = columns(kv, latent.nope_dim, kv.cols - latent.nope_dim);
  heads.key_stride = heads.value_stride = latent.nope_dim + shape.value_size();
  return heads;
}

}  // namespace specmoe::nn::cuda
