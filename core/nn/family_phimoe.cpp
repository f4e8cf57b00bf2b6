#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults phimoe_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 32064;
  defaults.intermediate_size = 6400;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 1e6;
  return defaults;
}

void add_phimoe_names(TensorNames& names) {
  const std::string layer = "layers.{layer}.";
  names.attention_norm_bias = {layer + "input_layernorm.bias"};
  names.ffn_norm_bias = {layer + "post_attention_layernorm.bias"};
  names.final_norm_bias = {"norm.bias"};
  names.head_bias = {"lm_head.bias"};
  names.router = {layer + "block_sparse_moe.gate.weight", layer + "mlp.router.weight"};
  add_expert_names(names, layer + "block_sparse_moe.", "w1", "w3", "w2");
  add_expert_names(names, layer + "mlp.", "w1", "w3", "w2");
}

/// longrope with its own attention factors. transformers (5.17) turns long texts by the short factors too, with the
/// long attention factor, and so do we.
void set_phimoe_rope(const ConfigReader& config, RopeSpec& rope) {
  if (rope.kind == RopeKind::kDefault) return;
  const ConfigReader object = *rope_object(config);
  for (const char* key : {"short_mscale", "long_mscale"}) {
    SPECMOE_CHECK(object.has(key), object.where(key), " is missing, and model_type phimoe needs it");
  }
  rope.attention_factor = object.number("short_mscale", 1.0, 0.0);
  rope.long_attention_factor = object.number("long_mscale", 1.0, 0.0);
  rope.long_factors = rope.short_factors;
}

/// Phi-3.5-MoE (arXiv:2404.14219): layer norms, biases, sparsemixer routing of two experts.
ModelSpec parse_phimoe(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, phimoe_defaults());
  spec.norm = NormKind::kLayer;
  spec.head_bias = config.boolean("lm_head_bias", false);
  add_phimoe_names(spec.names);
  RouterSpec router = parse_router(config, {"num_local_experts"}, 16, 2);
  SPECMOE_CHECK(router.experts_per_token == 2, config.where("num_experts_per_tok"), " must be 2, got ",
                router.experts_per_token);
  router.score = RouterSpec::Score::kSparsemixer;
  router.jitter = static_cast<float>(config.number("router_jitter_noise", 0.01));
  SPECMOE_CHECK(router.jitter >= 0.0F, config.where("router_jitter_noise"), " must be at least 0, got ", router.jitter);
  const bool bias = config.boolean("attention_bias", false);
  const int window = parse_window(config, 0);
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = bias;
    layer.attention.output_bias = bias;
    layer.attention.window = window;
    set_phimoe_rope(config, *layer.attention.rope);
    layer.ffn.router = router;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("phimoe", parse_phimoe);

}  // namespace
}  // namespace specmoe::nn
