#include "core/nn/weights.h"

#include <algorithm>
#include <cstring>

#include "core/nn/tensor_views.h"
#include "kernels/element.h"

namespace specmoe::nn {

using kernels::Backend;
using kernels::DType;
using kernels::PackedMatrix;
using kernels::WeightView;

namespace {

std::vector<float> vector_of(const WeightView& view) {
  return view.data == nullptr ? std::vector<float>{} : view.row(0);
}

/// All rows as a row-major table in `dtype`.
void copy_rows(const WeightView& source, DType dtype, std::byte* table) {
  const std::size_t width = kernels::dtype_bytes(dtype);
  if (source.dtype == dtype && !source.read_row) {
    std::memcpy(table, source.data, static_cast<std::size_t>(source.rows * source.cols) * width);
    return;
  }
  for (std::int64_t row = 0; row < source.rows; ++row) {
    for (const float value : source.row(row)) {
      const std::uint16_t rounded = kernels::float_to_bfloat16(value);
      std::memcpy(table, dtype == DType::kFloat32 ? static_cast<const void*>(&value) : &rounded, width);
      table += width;
    }
  }
}

/// Memory for packed weights, and the jobs that fill it.
class Packer {
 public:
  Packer(DType dtype, Backend backend) : dtype_(dtype), backend_(backend) {}

  /// The parts one under another.
  void rows(PackedMatrix& target, const std::vector<WeightView>& parts, DType dtype) {
    std::int64_t rows = 0;
    for (const WeightView& part : parts) rows += part.rows;
    make(target, rows, parts.front().cols, dtype);
    rows = 0;
    for (const WeightView& part : parts) {
      add_blocks(part, [&target, rows](const WeightView& block, std::int64_t first) {
        target.pack_rows(block, rows + first);
      });
      rows += part.rows;
    }
  }
  void rows(PackedMatrix& target, const std::vector<WeightView>& parts) { rows(target, parts, dtype_); }

  void gate_up(PackedMatrix& target, const WeightView& gate, const WeightView& up) {
    const std::int64_t panel = PackedMatrix::kPanel;
    make(target, 2 * ((gate.rows + panel - 1) / panel * panel), gate.cols, dtype_);
    jobs_.add(static_cast<std::int64_t>(target.bytes()), [&target, gate, up] { target.pack_gate_up(gate, up); });
  }

  void table(std::vector<std::byte>& target, const WeightView& source) {
    const DType dtype = table_dtype(dtype_);
    target.resize(static_cast<std::size_t>(source.rows * source.cols) * kernels::dtype_bytes(dtype));
    memory_.emplace_back(target);
    add_blocks(source, [&target, dtype](const WeightView& block, std::int64_t first) {
      copy_rows(block, dtype,
                target.data() + static_cast<std::size_t>(first * block.cols) * kernels::dtype_bytes(dtype));
    });
  }

  /// From the cache where it has them, else from the checkpoint, and the cache has them from then on.
  void run(kernels::ThreadPool& pool, const WeightCache* cache, const WorkProgress& progress) {
    if (cache != nullptr && cache->load(memory_, pool, progress)) return;
    jobs_.run(pool, progress);
    if (cache != nullptr) cache->save(memory_, pool);
  }

 private:
  void make(PackedMatrix& target, std::int64_t rows, std::int64_t cols, DType dtype) {
    target = PackedMatrix(rows, cols, dtype, backend_);
    memory_.push_back(target.storage());
  }

  /// work(rows [first, first + n) of `view`, first), in pieces that spread well.
  template <class Work>
  void add_blocks(const WeightView& view, const Work& work) {
    constexpr std::int64_t kElements = 1 << 20;
    const std::int64_t step =
        std::max(PackedMatrix::kPanel, kElements / view.cols / PackedMatrix::kPanel * PackedMatrix::kPanel);
    for (std::int64_t first = 0; first < view.rows; first += step) {
      const WeightView block = row_slice(view, first, std::min(step, view.rows - first));
      jobs_.add(block.rows * block.cols * 2, [block, first, work] { work(block, first); });
    }
  }

  DType dtype_;
  Backend backend_;
  WeightCache::Memory memory_;
  JobList jobs_;
};

NormWeights norm_of(const NormTensors& from, NormKind kind) {
  NormWeights norm{vector_of(from.weight), vector_of(from.bias)};
  if (kind == NormKind::kRmsPlusOne) {
    for (float& weight : norm.weight) weight += 1.0F;
  }
  return norm;
}

std::vector<float> joined(std::initializer_list<const WeightView*> parts) {
  std::vector<float> values;
  for (const WeightView* part : parts) {
    const std::vector<float> more = vector_of(*part);
    values.insert(values.end(), more.begin(), more.end());
  }
  return values;
}

void pack_ffn(const FfnSpec& spec, const LayerTensors& from, Packer& packer, FfnWeights& to) {
  if (spec.router) packer.rows(to.router, {from.router.weight}, DType::kFloat32);
  to.router_bias = vector_of(from.router.bias);
  to.choice_bias = vector_of(from.choice_bias);
  to.gate_up.resize(from.experts.size());
  to.down.resize(from.experts.size());
  for (std::size_t e = 0; e < from.experts.size(); ++e) {
    const ExpertTensors& expert = from.experts[e];
    packer.gate_up(to.gate_up[e], expert.gate.weight, expert.up.weight);
    packer.rows(to.down[e], {expert.down.weight});
    const std::vector<float> up = joined({&expert.gate.bias, &expert.up.bias});
    const std::vector<float> down = vector_of(expert.down.bias);
    to.up_bias.insert(to.up_bias.end(), up.begin(), up.end());
    to.down_bias.insert(to.down_bias.end(), down.begin(), down.end());
  }
  if (!spec.shared) return;
  packer.gate_up(to.shared_gate_up, from.shared.gate.weight, from.shared.up.weight);
  packer.rows(to.shared_down, {from.shared.down.weight});
  if (spec.shared->gated) packer.rows(to.shared_scale, {from.shared_scale}, DType::kFloat32);
}

void pack_latent(const AttentionSpec& spec, const LayerTensors& from, Packer& packer, LayerWeights& to) {
  const bool low_rank = spec.latent->query_rank > 0;
  const LinearTensors& first = low_rank ? from.query_down : from.query;
  packer.rows(to.qkv, {first.weight, from.kv_down.weight});
  if (spec.qkv_bias) {
    to.qkv_bias = joined({&first.bias, &from.kv_down.bias});
    // A plain query projection has no bias beside the one to low rank.
    to.qkv_bias.insert(to.qkv_bias.begin(), low_rank ? 0 : static_cast<std::size_t>(first.weight.rows), 0.0F);
  }
  if (low_rank) packer.rows(to.query_up, {from.query.weight});
  packer.rows(to.kv_up, {from.kv_up.weight});
  to.query_down_norm = vector_of(from.query_down_norm);
  to.kv_down_norm = vector_of(from.kv_down_norm);
}

void pack_layer(const ModelSpec& model, const LayerSpec& spec, const LayerTensors& from, Packer& packer,
                LayerWeights& to) {
  to.attention_norm = norm_of(from.attention_norm, model.norm);
  to.ffn_norm = norm_of(from.ffn_norm, model.norm);
  to.attention_out_norm = norm_of(from.attention_out_norm, model.norm);
  to.ffn_out_norm = norm_of(from.ffn_out_norm, model.norm);
  if (spec.attention.latent) {
    pack_latent(spec.attention, from, packer, to);
  } else {
    packer.rows(to.qkv, {from.query.weight, from.key.weight, from.value.weight});
    to.qkv_bias = joined({&from.query.bias, &from.key.bias, &from.value.bias});
  }
  to.query_norm = norm_of({from.query_norm, {}}, model.norm).weight;
  to.key_norm = norm_of({from.key_norm, {}}, model.norm).weight;
  to.sinks = vector_of(from.sinks);
  packer.rows(to.output, {from.output.weight});
  to.output_bias = vector_of(from.output.bias);
  for (float& bias : to.output_bias) bias *= model.product_scale();
  pack_ffn(spec.ffn, from, packer, to.ffn);
}

void pack_fusion(const FusionTensors& from, Packer& packer, FusionWeights& to) {
  packer.rows(to.fc, {from.fc.weight});
  to.bias = vector_of(from.fc.bias);
  to.embedding_norm = vector_of(from.embedding_norm);
  for (const WeightView& norm : from.feature_norms) {
    const std::vector<float> weight = vector_of(norm);
    to.feature_norm.insert(to.feature_norm.end(), weight.begin(), weight.end());
  }
}

}  // namespace

void Weights::embed(TokenId token, float* out) const {
  if (embedding.empty()) {
    head.read_row(token, out);
    return;
  }
  const auto cols = static_cast<std::size_t>(head.cols());
  const std::byte* row =
      embedding.data() + static_cast<std::size_t>(token) * cols * kernels::dtype_bytes(table_dtype(dtype));
  if (dtype == DType::kFloat32) {
    std::memcpy(out, row, cols * sizeof(float));
    return;
  }
  const auto* values = reinterpret_cast<const std::uint16_t*>(row);
  for (std::size_t d = 0; d < cols; ++d) out[d] = kernels::bfloat16_to_float(values[d]);
}

Weights pack_weights(const ModelSpec& spec, const ModelTensors& tensors, DType dtype, Backend backend,
                     kernels::ThreadPool& pool, const WeightCache* cache, const WorkProgress& progress) {
  Weights weights;
  weights.dtype = dtype;
  weights.layers.resize(spec.layers.size());
  Packer packer(dtype, backend);
  if (tensors.head.data != nullptr) packer.rows(weights.head, {tensors.head});
  if (!tensors.tied && tensors.embedding.data != nullptr) packer.table(weights.embedding, tensors.embedding);
  if (spec.fusion) pack_fusion(tensors.fusion, packer, weights.fusion);
  weights.head_bias = vector_of(tensors.head_bias);
  weights.final_norm = norm_of(tensors.final_norm, spec.norm);
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    pack_layer(spec, spec.layers[i], tensors.layers[i], packer, weights.layers[i]);
  }
  packer.run(pool, cache, progress);
  return weights;
}

}  // namespace specmoe::nn
