#include "core/nn/family_qwen.h"

namespace specmoe::nn {

namespace {

CommonDefaults qwen3_moe_defaults() {
  CommonDefaults defaults = qwen_defaults();
  defaults.hidden_size = 2048;
  defaults.intermediate_size = 6144;
  defaults.layers = 24;
  defaults.kv_heads = 4;
  return defaults;
}

/// Qwen3-30B-A3B and its like (arXiv:2505.09388): no shared expert; a window, if used, in every layer.
ModelSpec parse_qwen3_moe(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, qwen3_moe_defaults());
  set_per_head_norms(spec);
  set_qwen_experts(config, spec, 128, 8, 768);
  const bool bias = config.boolean("attention_bias", false);
  const int window = config.boolean("use_sliding_window", false) ? parse_window(config, 4096) : 0;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = bias;
    layer.attention.output_bias = bias;
    layer.attention.window = window;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("qwen3_moe", parse_qwen3_moe);

}  // namespace
}  // namespace specmoe::nn
