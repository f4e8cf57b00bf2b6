#include "core/nn/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>

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

/// Rows [first, first + rows) of a row-major table in `dtype`.
void copy_rows(const WeightView& source, std::int64_t first, std::int64_t rows, DType dtype, std::byte* table) {
  const std::size_t width = kernels::dtype_bytes(dtype);
  std::byte* to = table + static_cast<std::size_t>(first * source.cols) * width;
  if (source.dtype == dtype && !source.read_row) {
    const auto* from = static_cast<const std::byte*>(source.data) + (to - table);
    std::memcpy(to, from, static_cast<std::size_t>(rows * source.cols) * width);
    return;
  }
  for (std::int64_t row = first; row < first + rows; ++row) {
    for (const float value : source.row(row)) {
      const std::uint16_t rounded = kernels::float_to_bfloat16(value);
      std::memcpy(to, dtype == DType::kFloat32 ? static_cast<const void*>(&value) : &rounded, width);
      to += width;
    }
  }
}

/// Independent packing jobs; the team takes them one by one.
class Packer {
 public:
  Packer(DType dtype, Backend backend) : dtype_(dtype), backend_(backend) {}

  void rows(PackedMatrix& target, std::vector<WeightView> parts, DType dtype) {
    add([&target, parts = std::move(parts), dtype, backend = backend_] {
      std::int64_t rows = 0;
      for (const WeightView& part : parts) rows += part.rows;
      target = PackedMatrix(rows, parts.front().cols, dtype, backend);
      rows = 0;
      for (const WeightView& part : parts) {
        target.pack_rows(part, rows);
        rows += part.rows;
      }
    });
  }
  void rows(PackedMatrix& target, std::vector<WeightView> parts) { rows(target, std::move(parts), dtype_); }

  void gate_up(PackedMatrix& target, const WeightView& gate, const WeightView& up) {
    add([&target, gate, up, dtype = dtype_, backend = backend_] {
      const std::int64_t panel = PackedMatrix::kPanel;
      target = PackedMatrix(2 * ((gate.rows + panel - 1) / panel * panel), gate.cols, dtype, backend);
      target.pack_gate_up(gate, up);
    });
  }

  void table(std::vector<std::byte>& target, const WeightView& source) {
    const DType dtype = table_dtype(dtype_);
    target.resize(static_cast<std::size_t>(source.rows * source.cols) * kernels::dtype_bytes(dtype));
    constexpr std::int64_t kRows = 512;
    for (std::int64_t first = 0; first < source.rows; first += kRows) {
      const std::int64_t rows = std::min(kRows, source.rows - first);
      add([&target, source, first, rows, dtype] { copy_rows(source, first, rows, dtype, target.data()); });
    }
  }

  void run(kernels::ThreadPool& pool) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex mutex;
    pool.run([&](kernels::ThreadPool::Member&) {
      for (std::size_t job = next++; job < jobs_.size(); job = next++) {
        try {
          jobs_[job]();
        } catch (...) {
          const std::lock_guard lock(mutex);
          failure = std::current_exception();
        }
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

 private:
  void add(std::function<void()> job) { jobs_.push_back(std::move(job)); }

  DType dtype_;
  Backend backend_;
  std::vector<std::function<void()>> jobs_;
};

void pack_ffn(const FfnSpec& spec, const LayerTensors& from, Packer& packer, FfnWeights& to) {
  if (spec.router) packer.rows(to.router, {from.router}, DType::kFloat32);
  to.down.resize(from.experts.size());
  for (std::size_t e = 0; e < from.experts.size(); ++e) packer.rows(to.down[e], {from.experts[e].down.weight});
  if (spec.bias) {
    const ExpertTensors& dense = from.experts.front();
    packer.rows(to.gate, {dense.gate.weight});
    packer.rows(to.up, {dense.up.weight});
    to.gate_bias = vector_of(dense.gate.bias);
    to.up_bias = vector_of(dense.up.bias);
    to.down_bias = vector_of(dense.down.bias);
    return;
  }
  to.gate_up.resize(from.experts.size());
  for (std::size_t e = 0; e < from.experts.size(); ++e) {
    packer.gate_up(to.gate_up[e], from.experts[e].gate.weight, from.experts[e].up.weight);
  }
}

void pack_layer(const LayerSpec& spec, const LayerTensors& from, Packer& packer, LayerWeights& to) {
  to.attention_norm = vector_of(from.attention_norm);
  to.ffn_norm = vector_of(from.ffn_norm);
  packer.rows(to.qkv, {from.query.weight, from.key.weight, from.value.weight});
  packer.rows(to.output, {from.output.weight});
  for (const LinearTensors* part : {&from.query, &from.key, &from.value}) {
    const std::vector<float> bias = vector_of(part->bias);
    to.qkv_bias.insert(to.qkv_bias.end(), bias.begin(), bias.end());
  }
  to.output_bias = vector_of(from.output.bias);
  pack_ffn(spec.ffn, from, packer, to.ffn);
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
                     kernels::ThreadPool& pool) {
  Weights weights;
  weights.dtype = dtype;
  weights.layers.resize(spec.layers.size());
  Packer packer(dtype, backend);
  packer.rows(weights.head, {tensors.head});
  if (!tensors.tied) packer.table(weights.embedding, tensors.embedding);
  weights.final_norm = vector_of(tensors.final_norm);
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    pack_layer(spec.layers[i], tensors.layers[i], packer, weights.layers[i]);
  }
  packer.run(pool);
  return weights;
}

}  // namespace specmoe::nn
