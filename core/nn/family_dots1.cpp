#include "core/nn/family_deepseek.h"
#include "core/nn/family_qwen.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults dots1_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 152064;
  defaults.hidden_size = 4608;
  defaults.intermediate_size = 10944;
  defaults.layers = 62;
  defaults.kv_heads = 32;
  defaults.stop_tokens = {};
  return defaults;
}

/// The layers from max_window_layers on, unless layer_types says otherwise.
void set_dots1_windows(const ConfigReader& config, ModelSpec& spec) {
  const int window = parse_window(config, 4096);
  const auto first = config.integer("max_window_layers", 62, 0, kMaxLayers);
  const auto rule = [&](int layer) { return window > 0 && layer >= first; };
  const auto slides = layers_of_type(config, static_cast<int>(spec.layers.size()), "sliding_attention", rule);
  for (std::size_t i = 0; i < slides.size(); ++i) {
    if (!slides[i]) continue;
    SPECMOE_CHECK(window > 0, config.where("sliding_window"), " is null, but layer_types has sliding_attention");
    spec.layers[i].attention.window = window;
  }
}

/// dots.llm1 (arXiv:2506.05767): the attention of Qwen3 and the mixtures of DeepSeek-V3.
ModelSpec parse_dots1(const ConfigReader& config) {
  for (const char* key : {"n_routed_experts", "num_experts_per_tok", "n_shared_experts"}) {
    SPECMOE_CHECK(config.has(key), config.where(key), " is missing");
  }
  ModelSpec spec = parse_llama_like(config, dots1_defaults());
  set_per_head_norms(spec);
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = config.boolean("attention_bias", false);
    layer.attention.output_bias = layer.attention.qkv_bias;
  }
  set_dots1_windows(config, spec);
  const RouterSpec counts = parse_router(config, {"n_routed_experts"}, 0, 0);
  set_deepseek_mixtures(config, spec, {0, 1408, 0, 1.0}, parse_sigmoid_router(config, counts, false, 1, 1));
  return spec;
}

SPECMOE_MODEL_FAMILY("dots1", parse_dots1);

}  // namespace
}  // namespace specmoe::nn
