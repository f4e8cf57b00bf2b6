#include "core/nn/cuda/device_weights.h"

#include <algorithm>
#include <cstring>
#include <sstream>

#include "core/nn/rope_table.h"
#include "kernels/check.h"
#include "kernels/cuda/device_order.h"
#include "kernels/element.h"

namespace specmoe::nn::cuda {

using kernels::DType;
using kernels::PackedMatrix;
using kernels::cuda::DeviceMatrices;
using kernels::cuda::DeviceMatrix;

namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

DeviceMatrix shape_of(const PackedMatrix& matrix, const std::byte* data) {
  return {data, matrix.rows(), matrix.cols(), kernels::cuda::device_panel_bytes(matrix.cols(), matrix.dtype()),
          matrix.dtype()};
}

std::size_t device_bytes(const PackedMatrix& matrix) {
  return static_cast<std::size_t>(matrix.panels() * kernels::cuda::device_panel_bytes(matrix.cols(), matrix.dtype()));
}

/// What the kernels do not compute; null when there is nothing.
const char* missing(const AttentionSpec& spec) {
  if (spec.latent) return "multi-head latent attention";
  if (spec.sinks) return "attention sinks";
  if (spec.chunk > 0) return "chunked attention";
  if (spec.clip > 0.0F) return "clipped queries, keys and values";
  if (spec.temperature) return "attention temperature";
  if (spec.qk_norm == QkNorm::kL2AfterRope) return "norms of turned queries and keys";
  if (spec.rope && spec.rope->kind == RopeKind::kLongrope) return "longrope";
  return nullptr;
}

const char* missing(const FfnSpec& spec) {
  using Score = kernels::Routing::Score;
  if (spec.bias) return "biases of feed-forward parts";
  if (spec.activation.kind != kernels::Activation::Kind::kSilu) return "activations other than silu";
  if (spec.shared) return "shared experts";
  if (!spec.router) return nullptr;
  const RouterSpec& router = *spec.router;
  const bool softmax = router.score == Score::kSoftmax || router.score == Score::kSoftmaxOfChosen;
  if (!softmax || router.epsilon != 0.0F || router.scale != 1.0F || router.groups != 1) {
    return "routers other than softmax";
  }
  if (router.logit_bias || router.choice_bias || router.scales_input) return "biased routers";
  return nullptr;
}

const char* missing(const ModelSpec& spec) {
  if (spec.norm == NormKind::kLayer) return "layer norms";
  if (spec.block_order != BlockOrder::kPreNorm) return "norms behind attention and experts";
  if (spec.embedding_scale != 1.0F || spec.residual_scale != 1.0F) return "scaled embeddings and residuals";
  if (spec.logit_scale != 1.0F || spec.logit_softcap > 0.0F || spec.head_bias) return "scaled logits";
  for (const LayerSpec& layer : spec.layers) {
    if (const char* part = missing(layer.attention)) return part;
    if (const char* part = missing(layer.ffn)) return part;
  }
  return nullptr;
}

/// Embeddings are looked up by row, so a tied head's rows are there twice.
std::vector<std::byte> embedding_rows(const ModelSpec& spec, const Weights& weights) {
  const auto cols = static_cast<std::size_t>(spec.hidden_size);
  std::vector<std::byte> table(static_cast<std::size_t>(spec.vocab_size) * cols * kernels::dtype_bytes(weights.dtype));
  std::vector<float> row(cols);
  for (TokenId token = 0; token < spec.vocab_size; ++token) {
    weights.embed(token, row.data());
    std::byte* to = table.data() + static_cast<std::size_t>(token) * cols * kernels::dtype_bytes(weights.dtype);
    if (weights.dtype == DType::kFloat32) {
      std::memcpy(to, row.data(), cols * sizeof(float));
      continue;
    }
    for (std::size_t d = 0; d < cols; ++d) {
      const std::uint16_t bits = kernels::float_to_bfloat16(row[d]);
      std::memcpy(to + d * sizeof(bits), &bits, sizeof(bits));
    }
  }
  return table;
}

}  // namespace

void check_family(const ModelSpec& spec) {
  const char* part = missing(spec);
  SPECMOE_CHECK(part == nullptr, "model family ", spec.model_type, " on cuda: the device has no ", part,
                "; use device cpu, or a model without them");
}

MemoryTable device_weight_table(const ModelSpec& spec, DType dtype, bool tied) {
  MemoryTable table = weight_table(spec, dtype, tied);
  if (tied) {
    table.add("embedding rows of the tied head", std::int64_t{spec.vocab_size} * spec.hidden_size *
                                                     static_cast<std::int64_t>(kernels::dtype_bytes(dtype)));
  }
  std::vector<RopeSpec> ropes;
  std::int64_t floats = 0;
  for (const LayerSpec& layer : spec.layers) {
    const auto& rope = layer.attention.rope;
    if (!rope || std::find(ropes.begin(), ropes.end(), *rope) != ropes.end()) continue;
    ropes.push_back(*rope);
    floats += std::int64_t{spec.max_positions} * rope->rotary_dim;
  }
  table.add("rotary tables", floats * static_cast<std::int64_t>(sizeof(float)));
  return table;
}

void check_device_memory(const MemoryTable& table, const std::string& model, const std::string& device,
                         const kernels::cuda::DeviceInfo& info) {
  if (table.total() <= static_cast<std::int64_t>(info.free_bytes)) return;
  std::ostringstream parts;
  for (const MemoryLine& line : table.lines) {
    parts << (parts.tellp() > 0 ? ", " : "") << line.part << " " << static_cast<double>(line.bytes) / kGiB;
  }
  fail("model ", model, " needs ", static_cast<double>(table.total()) / kGiB, " GiB on ", device, " (", info.name,
       "), where ", static_cast<double>(info.free_bytes) / kGiB, " of ", static_cast<double>(info.total_bytes) / kGiB,
       " GiB are free: ", parts.str(), " GiB; use a smaller model, dtype bfloat16 or device cpu");
}

DeviceWeights::DeviceWeights(const ModelSpec& spec, const Weights& weights, int device, kernels::cuda::Stream& stream)
    : device_(device), stream_(stream) {
  const std::vector<std::byte> embedding = embedding_rows(spec, weights);
  model_.hidden = spec.hidden_size;
  model_.vocab = spec.vocab_size;
  model_.norm_eps = spec.norm_eps;
  model_.embedding = keep(embedding.data(), embedding.size());
  model_.embedding_dtype = weights.dtype;
  model_.final_norm = keep(weights.final_norm.weight);
  model_.head = keep(weights.head);
  for (const LayerSpec& layer : spec.layers) {
    if (layer.attention.rope) rope_table(*layer.attention.rope, spec.max_positions);
  }
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    model_.layers.push_back(layer(spec, spec.layers[i], weights.layers[i]));
  }
}

/// The host's copy may go when this returns.
const std::byte* DeviceWeights::keep(const void* data, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  memory_.emplace_back(bytes, device_);
  stream_.copy(memory_.back().data(), data, bytes);
  stream_.synchronize();
  return memory_.back().data();
}

const float* DeviceWeights::keep(const std::vector<float>& values) {
  return reinterpret_cast<const float*>(keep(values.data(), values.size() * sizeof(float)));
}

DeviceMatrix DeviceWeights::keep(const PackedMatrix& matrix) {
  const std::vector<std::byte> ordered = kernels::cuda::to_device_order(matrix);
  return shape_of(matrix, keep(ordered.data(), ordered.size()));
}

/// All experts of a layer in one piece.
DeviceMatrices DeviceWeights::keep(const std::vector<PackedMatrix>& matrices) {
  const std::size_t each = device_bytes(matrices.front());
  memory_.emplace_back(each * matrices.size(), device_);
  std::byte* to = memory_.back().data();
  std::vector<const std::byte*> addresses;
  for (const PackedMatrix& matrix : matrices) {
    const std::vector<std::byte> ordered = kernels::cuda::to_device_order(matrix);
    stream_.copy(to, ordered.data(), ordered.size());
    stream_.synchronize();
    addresses.push_back(to);
    to += each;
  }
  const std::byte* table = keep(addresses.data(), addresses.size() * sizeof(addresses[0]));
  return {reinterpret_cast<const std::byte* const*>(table), static_cast<std::int64_t>(matrices.size()),
          shape_of(matrices.front(), nullptr)};
}

const float* DeviceWeights::rope_table(const RopeSpec& rope, int positions) {
  for (const auto& [spec, table] : ropes_) {
    if (spec == rope) return table;
  }
  RopeTable table(rope);
  table.reserve(positions, positions);
  const auto floats = static_cast<std::size_t>(positions) * static_cast<std::size_t>(rope.rotary_dim);
  ropes_.emplace_back(rope, reinterpret_cast<const float*>(keep(table.data(positions), floats * sizeof(float))));
  return ropes_.back().second;
}

DeviceLayer DeviceWeights::layer(const ModelSpec& model, const LayerSpec& spec, const LayerWeights& weights) {
  const AttentionSpec& attention = spec.attention;
  DeviceLayer to;
  to.attention_norm = keep(weights.attention_norm.weight);
  to.ffn_norm = keep(weights.ffn_norm.weight);
  to.qkv = keep(weights.qkv);
  to.output = keep(weights.output);
  to.qkv_bias = keep(weights.qkv_bias);
  to.output_bias = keep(weights.output_bias);
  to.attention = {key_floats_,        attention.heads,  attention.kv_heads,
                  attention.head_dim, attention.window, attention.scale};
  key_floats_ += std::int64_t{attention.kv_heads} * attention.head_dim;
  if (attention.rope) {
    to.cos_sin = rope_table(*attention.rope, model.max_positions);
    to.half = attention.rope->rotary_dim / 2;
  }
  to.query_norm = keep(weights.query_norm);
  to.key_norm = keep(weights.key_norm);
  to.flat_norms = attention.qk_norm == QkNorm::kFlat;
  if (spec.ffn.router) {
    to.router = keep(weights.ffn.router);
    to.experts_per_token = spec.ffn.router->experts_per_token;
    to.renormalise =
        spec.ffn.router->renormalise || spec.ffn.router->score == kernels::Routing::Score::kSoftmaxOfChosen;
  }
  to.gate_up = keep(weights.ffn.gate_up);
  to.down = keep(weights.ffn.down);
  to.inner = spec.ffn.width;
  return to;
}

}  // namespace specmoe::nn::cuda
