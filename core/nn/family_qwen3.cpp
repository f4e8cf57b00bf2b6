#include "core/nn/family_qwen.h"

namespace specmoe::nn {

namespace {

/// Qwen3 (arXiv:2505.09388): norms over heads of queries and keys. attention_bias covers the output projection too.
ModelSpec parse_qwen3(const ConfigReader& config) {
  CommonDefaults defaults = qwen_defaults();
  defaults.head_dim = 128;
  ModelSpec spec = parse_llama_like(config, defaults);
  set_per_head_norms(spec);
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = config.boolean("attention_bias", false);
    layer.attention.output_bias = layer.attention.qkv_bias;
  }
  const auto first = config.integer("max_window_layers", 28, 0, kMaxLayers);
  set_qwen_windows(config, spec, [first](int layer) { return layer >= first; });
  return spec;
}

SPECMOE_MODEL_FAMILY("qwen3", parse_qwen3);

}  // namespace
}  // namespace specmoe::nn
