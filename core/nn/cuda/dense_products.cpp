#include "core/nn/cuda/dense_products.h"

#include <utility>

#include "kernels/cuda/device_order.h"

namespace specmoe::nn::cuda {

using kernels::DType;
using kernels::cuda::DeviceMatrix;

namespace {

/// Matrices of one type, without their memory.
class Shapes {
 public:
  explicit Shapes(DType dtype) : dtype_(dtype) {}
  void add(std::int64_t rows, std::int64_t cols) {
    all_.push_back({nullptr, rows, cols, kernels::cuda::device_panel_bytes(cols, dtype_), dtype_});
  }
  /// Panels of gate and up take turns, so that both are whole panels.
  void add_ffn(std::int64_t width, std::int64_t hidden) {
    constexpr std::int64_t kPanel = kernels::PackedMatrix::kPanel;
    add(2 * ((width + kPanel - 1) / kPanel * kPanel), hidden);
    add(hidden, width);
  }
  std::vector<DeviceMatrix> take() { return std::move(all_); }

 private:
  DType dtype_;
  std::vector<DeviceMatrix> all_;
};

void add_attention(const AttentionSpec& spec, std::int64_t hidden, Shapes& to) {
  const std::int64_t queries = std::int64_t{spec.heads} * spec.head_dim;
  if (spec.latent) {
    const LatentSpec& latent = *spec.latent;
    const std::int64_t first = latent.query_rank > 0 ? latent.query_rank : queries;
    to.add(first + latent.kv_rank + latent.rope_dim, hidden);
    if (latent.query_rank > 0) to.add(queries, latent.query_rank);
    to.add(std::int64_t{spec.heads} * (latent.nope_dim + latent.value_dim), latent.kv_rank);
  } else {
    to.add(queries + 2 * std::int64_t{spec.kv_heads} * spec.head_dim, hidden);
  }
  to.add(hidden, std::int64_t{spec.heads} * spec.value_dim());
}

}  // namespace

std::vector<DeviceMatrix> dense_products(const DeviceModel& model) {
  std::vector<DeviceMatrix> products;
  for (const DeviceLayer& layer : model.layers) {
    products.push_back(layer.qkv);
    if (layer.latent.query_rank > 0) products.push_back(layer.latent.query_up);
    if (layer.latent.kv_rank > 0) products.push_back(layer.latent.kv_up);
    products.push_back(layer.output);
    const DeviceFfn& ffn = layer.ffn;
    if (!ffn.routed()) products.insert(products.end(), {ffn.gate_up.shape, ffn.down.shape});
    if (ffn.shared.width > 0) products.insert(products.end(), {ffn.shared.gate_up.shape, ffn.shared.down.shape});
  }
  return products;
}

std::vector<DeviceMatrix> dense_products(const ModelSpec& spec, DType dtype) {
  Shapes shapes(dtype);
  for (const LayerSpec& layer : spec.layers) {
    add_attention(layer.attention, spec.hidden_size, shapes);
    if (!layer.ffn.router) shapes.add_ffn(layer.ffn.width, spec.hidden_size);
    if (layer.ffn.shared) shapes.add_ffn(layer.ffn.shared->width, spec.hidden_size);
  }
  return shapes.take();
}

}  // namespace specmoe::nn::cuda
