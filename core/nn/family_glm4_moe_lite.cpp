#include "core/nn/family_deepseek.h"

namespace specmoe::nn {

namespace {

CommonDefaults glm4_moe_lite_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 154880;
  defaults.hidden_size = 2048;
  defaults.intermediate_size = 10240;
  defaults.layers = 47;
  defaults.heads = 20;
  defaults.max_positions = 202752;
  defaults.norm_eps = 1e-5;
  defaults.stop_tokens = {1};
  return defaults;
}

/// GLM-4.7-Flash: DeepSeek-V3 in other sizes, with one group of experts.
ModelSpec parse_glm4_moe_lite(const ConfigReader& config) {
  const RouterSpec counts = parse_router(config, {"n_routed_experts", "num_local_experts"}, 64, 4);
  const RouterSpec router = parse_sigmoid_router(config, counts, true, 1, 1);
  const CommonDefaults defaults = glm4_moe_lite_defaults();
  LatentSpec latent;
  latent.query_rank = 768;
  latent.kv_rank = 512;
  latent.nope_dim = 192;
  latent.rope_dim = 64;
  latent.value_dim = 256;
  return parse_deepseek_v3_like(config, defaults, latent, {1, 1536, leading_dense_layers(config, defaults), 1.8},
                                router);
}

SPECMOE_MODEL_FAMILY("glm4_moe_lite", parse_glm4_moe_lite);

}  // namespace
}  // namespace specmoe::nn
