#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults olmoe_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 50304;
  defaults.hidden_size = 2048;
  defaults.intermediate_size = 2048;
  defaults.layers = 16;
  defaults.heads = 16;
  defaults.max_positions = 4096;
  defaults.norm_eps = 1e-5;
  defaults.stop_tokens = {50279};
  return defaults;
}

/// OLMoE (Muennighoff et al. 2024, arXiv:2409.02060): norms over whole projections of queries and keys, and a clip of
/// queries, keys and values after them.
ModelSpec parse_olmoe(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, olmoe_defaults());
  const std::string layer_name = "layers.{layer}.";
  spec.names.query_norm = {layer_name + "self_attn.q_norm.weight"};
  spec.names.key_norm = {layer_name + "self_attn.k_norm.weight"};
  spec.names.router = {layer_name + "mlp.gate.weight"};
  add_expert_names(spec.names, layer_name + "mlp.", "gate_proj", "up_proj", "down_proj");
  RouterSpec router = parse_router(config, {"num_experts", "num_local_experts"}, 64, 8);
  router.renormalise = config.boolean("norm_topk_prob", false);
  const bool bias = config.boolean("attention_bias", false);
  const double clip = config.has("clip_qkv") ? config.number("clip_qkv", 0.0, 0.0) : 0.0;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = bias;
    layer.attention.output_bias = bias;
    layer.attention.qk_norm = QkNorm::kFlat;
    layer.attention.clip = static_cast<float>(clip);
    layer.ffn.router = router;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("olmoe", parse_olmoe);

}  // namespace
}  // namespace specmoe::nn
