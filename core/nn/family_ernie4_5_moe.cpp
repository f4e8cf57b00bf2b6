#include "core/nn/family_deepseek.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults ernie4_5_moe_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 103424;
  defaults.hidden_size = 2560;
  defaults.intermediate_size = 12288;
  defaults.layers = 28;
  defaults.heads = 20;
  defaults.kv_heads = 4;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 500000.0;
  defaults.tied_embeddings = true;
  return defaults;
}

/// Softmax scores, a bias that takes part in the choice and not in the weights. Weights are divided by their sum plus
/// moe_norm_min; transformers divides by the larger of the two, which is the same to rounding while that is tiny.
RouterSpec parse_ernie_router(const ConfigReader& config) {
  constexpr double kMostNormMin = 1e-9;
  expect_text(config, "moe_gate_act", "softmax");
  RouterSpec router;
  router.experts = parse_size(config, "moe_num_experts", 64, kMaxExperts);
  router.experts_per_token = parse_size(config, "moe_k", 6, kMaxExperts);
  SPECMOE_CHECK(router.experts_per_token <= router.experts, config.where("moe_k"), " = ", router.experts_per_token,
                " must be at most moe_num_experts = ", router.experts);
  const double least = config.number("moe_norm_min", 1e-12, 0.0);
  SPECMOE_CHECK(least <= kMostNormMin, config.where("moe_norm_min"), " = ", least, " is not supported, at most ",
                kMostNormMin);
  router.epsilon = static_cast<float>(least);
  router.choice_bias = true;
  return router;
}

FfnSpec parse_ernie_mixture(const ConfigReader& config) {
  FfnSpec mixture;
  mixture.width = parse_size(config, "moe_intermediate_size", 1536);
  mixture.router = parse_ernie_router(config);
  const std::int64_t shared = config.integer("moe_num_shared_experts", 2, 0, kMaxExperts);
  SPECMOE_CHECK(shared * mixture.width <= kMaxSize, config.where("moe_num_shared_experts"), " = ", shared,
                " times moe_intermediate_size = ", mixture.width, " is too wide");
  if (shared > 0) mixture.shared = SharedExpertSpec{static_cast<int>(shared) * mixture.width, false};
  return mixture;
}

/// Every moe_layer_interval-th layer from moe_layer_start_index to moe_layer_end_index, of which -1 is the last one.
void set_ernie_mixtures(const ConfigReader& config, ModelSpec& spec) {
  const FfnSpec mixture = parse_ernie_mixture(config);
  const auto first = config.integer("moe_layer_start_index", 1, 0, kMaxLayers);
  const auto end = config.integer("moe_layer_end_index", -1, -1, kMaxLayers);
  const auto last = end == -1 ? static_cast<std::int64_t>(spec.layers.size()) - 1 : end;
  const int interval = parse_size(config, "moe_layer_interval", 1);
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    if ((layer + 1) % interval == 0 && layer >= first && layer <= last) spec.layers[i].ffn = mixture;
  }
}

/// ERNIE 4.5 21B-A3B and 300B-A47B, text only: heads turn interleaved. Its prediction modules are left out.
ModelSpec parse_ernie4_5_moe(const ConfigReader& config) {
  SPECMOE_CHECK(!config.boolean("use_bias", false), config.where("use_bias"),
                " = true is not supported for this model_type");
  ModelSpec spec = parse_llama_like(config, ernie4_5_moe_defaults());
  for (LayerSpec& layer : spec.layers) layer.attention.rope->interleaved = true;
  const std::string block = "layers.{layer}.mlp.", bias = "moe_statics.e_score_correction_bias";
  spec.names.router = {block + "gate.weight"};
  spec.names.choice_bias = {block + bias, block + "gate." + bias};
  spec.names.shared_gate = {block + "shared_experts.gate_proj"};
  spec.names.shared_up = {block + "shared_experts.up_proj"};
  spec.names.shared_down = {block + "shared_experts.down_proj"};
  add_expert_names(spec.names, block, "gate_proj", "up_proj", "down_proj");
  set_ernie_mixtures(config, spec);
  spec.names.ignored.emplace_back("mtp_");
  return spec;
}

SPECMOE_MODEL_FAMILY("ernie4_5_moe", parse_ernie4_5_moe);

}  // namespace
}  // namespace specmoe::nn
