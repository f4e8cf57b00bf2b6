#include "core/nn/family_qwen.h"

namespace specmoe::nn {

namespace {

/// Qwen2 and 2.5 (arXiv:2407.10671): biases on queries, keys and values; the last layers may have a window.
ModelSpec parse_qwen2(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, qwen_defaults());
  for (LayerSpec& layer : spec.layers) layer.attention.qkv_bias = true;
  const auto first = config.integer("max_window_layers", 28, 0, kMaxLayers);
  set_qwen_windows(config, spec, [first](int layer) { return layer >= first; });
  return spec;
}

SPECMOE_MODEL_FAMILY("qwen2", parse_qwen2);

}  // namespace
}  // namespace specmoe::nn
