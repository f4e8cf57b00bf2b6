#include "core/nn/family_deepseek.h"
#include "core/nn/family_qwen.h"

namespace specmoe::nn {

namespace {

CommonDefaults glm4_moe_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 151552;
  defaults.intermediate_size = 10944;
  defaults.layers = 46;
  defaults.heads = 96;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.partial_rotary = 0.5;
  defaults.stop_tokens = {};
  return defaults;
}

/// GLM-4.5, 4.5-Air, 4.6 and 4.7 (arXiv:2508.06471): grouped-query attention whose heads turn in part, mixtures and
/// prediction layers of DeepSeek-V3. The output projection never has a bias.
ModelSpec parse_glm4_moe(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, glm4_moe_defaults());
  if (config.boolean("use_qk_norm", false)) set_per_head_norms(spec);
  for (LayerSpec& layer : spec.layers) layer.attention.qkv_bias = config.boolean("attention_bias", false);
  const RouterSpec counts = parse_router(config, {"n_routed_experts", "num_local_experts"}, 128, 8);
  set_deepseek_mixtures(config, spec, {1, 1408, 1, 1.0}, parse_sigmoid_router(config, counts, true, 1, 1));
  set_prediction_layers(config, spec);
  return spec;
}

SPECMOE_MODEL_FAMILY("glm4_moe", parse_glm4_moe);

}  // namespace
}  // namespace specmoe::nn
