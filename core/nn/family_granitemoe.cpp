#include "core/nn/model_family.h"

namespace specmoe::nn {

namespace {

double multiplier(const ConfigReader& config, const char* key) {
  return config.has(key) ? config.number(key, 1.0, 0.0) : 1.0;
}

/// Granite 3 MoE: four multipliers, each of which may be 1, and the softmax over the chosen logits alone. Experts are
/// always fused.
ModelSpec parse_granitemoe(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, CommonDefaults{});
  spec.embedding_scale = static_cast<float>(multiplier(config, "embedding_multiplier"));
  spec.residual_scale = static_cast<float>(multiplier(config, "residual_multiplier"));
  spec.logit_scale = static_cast<float>(1.0 / multiplier(config, "logits_scaling"));
  const std::string block = "layers.{layer}.block_sparse_moe.";
  spec.names.router = {block + "router.layer.weight", block + "router.weight"};
  spec.names.fused_gate_up = {block + "input_linear.weight", block + "experts.gate_up_proj"};
  spec.names.fused_down = {block + "output_linear.weight", block + "experts.down_proj"};
  RouterSpec router = parse_router(config, {"num_local_experts"}, 8, 2);
  router.score = RouterSpec::Score::kSoftmaxOfChosen;
  const bool bias = config.boolean("attention_bias", false);
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = bias;
    layer.attention.output_bias = bias;
    layer.attention.scale = static_cast<float>(multiplier(config, "attention_multiplier"));
    layer.ffn.router = router;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("granitemoe", parse_granitemoe);

}  // namespace
}  // namespace specmoe::nn
