#include "core/nn/family_deepseek.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults solar_open_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 196608;
  defaults.layers = 48;
  defaults.heads = 64;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 1e6;
  defaults.stop_tokens = {};
  return defaults;
}

/// Solar Open 100B: the grouped-query attention of Llama, whose output projection never has a bias, and the mixtures of
/// DeepSeek-V3 in every layer. The keys of GLM-4.5 that the release carries along must say so.
ModelSpec parse_solar_open(const ConfigReader& config) {
  SPECMOE_CHECK(!config.boolean("use_qk_norm", false), config.where("use_qk_norm"),
                " = true is not supported for this model_type");
  SPECMOE_CHECK(config.integer("first_k_dense_replace", 0, 0, kMaxLayers) == 0, config.where("first_k_dense_replace"),
                " other than 0 is not supported for this model_type");
  ModelSpec spec = parse_llama_like(config, solar_open_defaults());
  for (LayerSpec& layer : spec.layers) layer.attention.qkv_bias = config.boolean("attention_bias", false);
  const RouterSpec counts = parse_router(config, {"n_routed_experts", "num_local_experts"}, 128, 8);
  set_deepseek_mixtures(config, spec, {1, 1280, 0, 1.0}, parse_sigmoid_router(config, counts, true, 1, 1));
  return spec;
}

SPECMOE_MODEL_FAMILY("solar_open", parse_solar_open);

}  // namespace
}  // namespace specmoe::nn
