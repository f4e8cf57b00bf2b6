#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

constexpr std::int64_t kMaxExperts = 4096;

CommonDefaults mixtral_defaults() {
  CommonDefaults defaults;
  defaults.intermediate_size = 14336;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 1e6;
  return defaults;
}

/// transformers 5 keeps experts fused under `mlp`, checkpoints on a hub one by one under `block_sparse_moe`.
void add_expert_names(TensorNames& names) {
  const std::string layer = "layers.{layer}.";
  for (const std::string& block : {layer + "block_sparse_moe.", layer + "mlp."}) {
    names.router.push_back(block + "gate.weight");
    names.expert_gate.push_back(block + "experts.{expert}.w1.weight");
    names.expert_up.push_back(block + "experts.{expert}.w3.weight");
    names.expert_down.push_back(block + "experts.{expert}.w2.weight");
    names.fused_gate_up.push_back(block + "experts.gate_up_proj");
    names.fused_down.push_back(block + "experts.down_proj");
  }
}

/// Mixtral (Jiang et al. 2024, arXiv:2401.04088): every layer is a mixture, chosen weights always renormalised.
ModelSpec parse_mixtral(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, mixtral_defaults());
  add_expert_names(spec.names);
  RouterSpec router;
  const char* key = config.has("num_local_experts") ? "num_local_experts" : "num_experts";
  router.experts = static_cast<int>(config.integer(key, 8, 1, kMaxExperts));
  router.experts_per_token = static_cast<int>(config.integer("num_experts_per_tok", 2, 1, kMaxExperts));
  SPECMOE_CHECK(router.experts_per_token <= router.experts, config.where("num_experts_per_tok"), " = ",
                router.experts_per_token, " must be at most ", key, " = ", router.experts);
  const std::int64_t window =
      config.has("sliding_window") ? config.integer("sliding_window", 0, 1, std::int64_t{1} << 30) : 0;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.window = static_cast<int>(window);
    layer.ffn.router = router;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("mixtral", parse_mixtral);

}  // namespace
}  // namespace specmoe::nn
