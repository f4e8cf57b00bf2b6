#include "core/nn/family_deepseek.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

/// rotary_dim stands for partial_rotary_factor in the releases.
CommonDefaults minimax_m2_defaults(const ConfigReader& config) {
  CommonDefaults defaults;
  defaults.vocab_size = 200064;
  defaults.hidden_size = 3072;
  defaults.intermediate_size = 1536;
  defaults.layers = 62;
  defaults.heads = 48;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 196608;
  defaults.rope_theta = 5e6;
  defaults.partial_rotary = 1.0;
  defaults.stop_tokens = {200020};
  if (config.has("rotary_dim")) {
    const int head_dim = parse_size(config, "head_dim", *defaults.head_dim, kMaxHeads);
    const int turning = parse_size(config, "rotary_dim", head_dim, head_dim);
    defaults.partial_rotary = (turning + 0.5) / head_dim;  // half an element more: it is cut off, and rounding with it
  }
  return defaults;
}

/// What the keys of the releases can say and no release says.
void check_minimax_m2(const ConfigReader& config) {
  expect_text(config, "scoring_func", "sigmoid");
  expect_text(config, "qk_norm_type", "per_layer");
  for (const char* key : {"use_qk_norm", "use_routing_bias"}) {
    SPECMOE_CHECK(config.boolean(key, true), config.where(key), " = false is not supported");
  }
  SPECMOE_CHECK(config.integer("shared_intermediate_size", 0, 0, kMaxSize) == 0,
                config.where("shared_intermediate_size"), " other than 0 is not supported");
  for (const std::int64_t type : config.integers("attn_type_list", 0, 1).value_or(std::vector<std::int64_t>{})) {
    SPECMOE_CHECK(type == 1, config.where("attn_type_list"), " other than 1 (full attention) is not supported");
  }
}

/// MiniMax-M2, M2.1 and M2.5: every layer a mixture with the router of DeepSeek-V3 in one group; norms over whole
/// projections of queries and keys, whose heads turn in part. Its prediction modules are left out.
ModelSpec parse_minimax_m2(const ConfigReader& config) {
  check_minimax_m2(config);
  ModelSpec spec = parse_llama_like(config, minimax_m2_defaults(config));
  const std::string attention = "layers.{layer}.self_attn.";
  spec.names.query_norm = {attention + "q_norm.weight"};
  spec.names.key_norm = {attention + "k_norm.weight"};
  const std::string old_block = "layers.{layer}.block_sparse_moe.", block = "layers.{layer}.mlp.";
  spec.names.router = {old_block + "gate.weight", block + "gate.weight"};
  spec.names.choice_bias = {old_block + "e_score_correction_bias", block + "e_score_correction_bias"};
  add_expert_names(spec.names, old_block, "w1", "w3", "w2");
  add_expert_names(spec.names, block, "gate_proj", "up_proj", "down_proj");
  RouterSpec router = parse_router(config, {"num_local_experts", "num_experts"}, 256, 8);
  router.score = RouterSpec::Score::kSigmoid;
  router.choice_bias = true;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qk_norm = QkNorm::kFlat;
    layer.ffn.router = router;
  }
  leave_out_layers(spec, config.has("num_mtp_modules") ? config.integer("num_mtp_modules", 0, 0, kMaxLayers) : 0);
  return spec;
}

SPECMOE_MODEL_FAMILY("minimax_m2", parse_minimax_m2);

}  // namespace
}  // namespace specmoe::nn
