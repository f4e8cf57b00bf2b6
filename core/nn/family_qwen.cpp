#include "core/nn/family_qwen.h"

#include "kernels/check.h"

namespace specmoe::nn {

CommonDefaults qwen_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 151936;
  defaults.intermediate_size = 22016;
  defaults.kv_heads = 32;
  defaults.max_positions = 32768;
  defaults.stop_tokens = {};
  return defaults;
}

void set_qwen_windows(const ConfigReader& config, ModelSpec& spec, const std::function<bool(int layer)>& rule) {
  const bool used = config.boolean("use_sliding_window", false);
  const int window = used ? parse_window(config, 4096) : 0;
  const auto here = [&](int layer) { return window > 0 && rule(layer); };
  const auto slides = layers_of_type(config, static_cast<int>(spec.layers.size()), "sliding_attention", here);
  for (std::size_t i = 0; i < slides.size(); ++i) {
    if (!slides[i]) continue;
    SPECMOE_CHECK(window > 0, config.where("layer_types"),
                  " has sliding_attention, which needs use_sliding_window and a sliding_window");
    spec.layers[i].attention.window = window;
  }
}

void set_per_head_norms(ModelSpec& spec) {
  spec.names.query_norm = {"layers.{layer}.self_attn.q_norm.weight"};
  spec.names.key_norm = {"layers.{layer}.self_attn.k_norm.weight"};
  for (LayerSpec& layer : spec.layers) layer.attention.qk_norm = QkNorm::kPerHead;
}

void set_qwen_experts(const ConfigReader& config, ModelSpec& spec, int experts, int experts_per_token,
                      int expert_width) {
  const std::string block = "layers.{layer}.mlp.";
  spec.names.router = {block + "gate.weight"};
  add_expert_names(spec.names, block, "gate_proj", "up_proj", "down_proj");
  RouterSpec router = parse_router(config, {"num_experts", "num_local_experts"}, experts, experts_per_token);
  router.renormalise = config.boolean("norm_topk_prob", false);
  const int width = parse_size(config, "moe_intermediate_size", expert_width);
  const auto sparse = sparse_layers(config, static_cast<int>(spec.layers.size()));
  for (std::size_t i = 0; i < sparse.size(); ++i) {
    if (!sparse[i]) continue;
    spec.layers[i].ffn.router = router;
    spec.layers[i].ffn.width = width;
  }
}

}  // namespace specmoe::nn
