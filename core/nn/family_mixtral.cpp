#include "core/nn/model_family.h"

namespace specmoe::nn {

namespace {

CommonDefaults mixtral_defaults() {
  CommonDefaults defaults;
  defaults.intermediate_size = 14336;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 1e6;
  return defaults;
}

/// Mixtral (Jiang et al. 2024, arXiv:2401.04088): every layer is a mixture, chosen weights always renormalised.
/// transformers 5 keeps experts fused under `mlp`, checkpoints on a hub one by one under `block_sparse_moe`.
ModelSpec parse_mixtral(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, mixtral_defaults());
  for (const char* block : {"layers.{layer}.block_sparse_moe.", "layers.{layer}.mlp."}) {
    spec.names.router.push_back(std::string(block) + "gate.weight");
    add_expert_names(spec.names, block, "w1", "w3", "w2");
  }
  const RouterSpec router = parse_router(config, {"num_local_experts", "num_experts"}, 8, 2);
  const int window = parse_window(config, 0);
  for (LayerSpec& layer : spec.layers) {
    layer.attention.window = window;
    layer.ffn.router = router;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("mixtral", parse_mixtral);

}  // namespace
}  // namespace specmoe::nn
