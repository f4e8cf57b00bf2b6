#include "core/nn/family_qwen.h"

namespace specmoe::nn {

namespace {

CommonDefaults qwen2_moe_defaults() {
  CommonDefaults defaults = qwen_defaults();
  defaults.hidden_size = 2048;
  defaults.intermediate_size = 5632;
  defaults.layers = 24;
  defaults.heads = 16;
  defaults.kv_heads = 16;
  return defaults;
}

/// Qwen1.5-MoE and Qwen2-57B-A14B (arXiv:2407.10671): a shared expert behind a gate of its own. Windows lie in every
/// second layer below max_window_layers, the other way round than in qwen2.
ModelSpec parse_qwen2_moe(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, qwen2_moe_defaults());
  set_qwen_experts(config, spec, 60, 4, 1408);
  const std::string block = "layers.{layer}.mlp.";
  spec.names.shared_gate = {block + "shared_expert.gate_proj"};
  spec.names.shared_up = {block + "shared_expert.up_proj"};
  spec.names.shared_down = {block + "shared_expert.down_proj"};
  spec.names.shared_scale = {block + "shared_expert_gate.weight"};
  const SharedExpertSpec shared{parse_size(config, "shared_expert_intermediate_size", 5632), true};
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = config.boolean("qkv_bias", true);
    if (layer.ffn.router) layer.ffn.shared = shared;
  }
  const auto end = config.integer("max_window_layers", 28, 0, kMaxLayers);
  set_qwen_windows(config, spec, [end](int layer) { return layer % 2 == 0 && layer < end; });
  return spec;
}

SPECMOE_MODEL_FAMILY("qwen2_moe", parse_qwen2_moe);

}  // namespace
}  // namespace specmoe::nn
