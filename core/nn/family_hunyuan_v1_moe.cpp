#include <algorithm>
#include <cmath>

#include "core/nn/family_deepseek.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

/// attention_head_dim stands for head_dim in the older releases.
CommonDefaults hunyuan_v1_moe_defaults(const ConfigReader& config) {
  CommonDefaults defaults;
  defaults.vocab_size = 290943;
  defaults.norm_eps = 1e-5;
  if (config.has("attention_head_dim")) {
    defaults.head_dim = parse_size(config, "attention_head_dim", 0, kMaxHeads);
  }
  return defaults;
}

/// What the keys of the releases can say and no release says.
void check_hunyuan(const ConfigReader& config) {
  expect_text(config, "norm_type", "rms");
  for (const char* key : {"use_qk_norm", "use_rotary_pos_emb", "use_mixed_mlp_moe", "norm_topk_prob"}) {
    SPECMOE_CHECK(config.boolean(key, true), config.where(key), " = false is not supported for this model_type");
  }
  for (const char* key :
       {"use_cla", "use_mla", "mlp_bias", "group_limited_greedy", "moe_drop_tokens", "position_embedding_xdrope"}) {
    SPECMOE_CHECK(!config.boolean(key, false), config.where(key), " = true is not supported for this model_type");
  }
  SPECMOE_CHECK(config.integer("moe_layer_num_skipped", 0, 0, kMaxLayers) == 0, config.where("moe_layer_num_skipped"),
                " other than 0 is not supported");
  SPECMOE_CHECK(config.number("routed_scaling_factor", 1.0) == 1.0, config.where("routed_scaling_factor"),
                " other than 1 is not supported for this model_type");
}

/// A count, or a list with one for each layer, which must all be the same.
int parse_same(const ConfigReader& config, const std::string& key, int absent, std::size_t layers) {
  const std::vector<TokenId> values = config.tokens(key);
  if (values.empty()) return absent;
  SPECMOE_CHECK(values.size() == 1 || values.size() == layers, config.where(key), " must have one entry for each of ",
                layers, " layers, got ", values.size());
  SPECMOE_CHECK(std::ranges::all_of(values, [&](TokenId value) { return value == values.front() && value > 0; }),
                config.where(key), " must be one number above 0 for all layers");
  return values.front();
}

/// Dynamic NTK with a fixed alpha: theta grows once, whatever the length of the text.
void set_alpha_rope(const ConfigReader& config, AttentionSpec& attention) {
  RopeSpec& rope = *attention.rope;
  if (rope.kind != RopeKind::kDynamic || !rope_object(config)->has("alpha")) return;
  const double alpha = rope_object(config)->number("alpha", 1.0, 0.0);
  const double dim = attention.head_dim;
  SPECMOE_CHECK(dim > 2, config.where("head_dim"), " must be above 2 for a rope with alpha, got ", dim);
  rope.kind = RopeKind::kDefault;
  rope.factor = 1.0;
  rope.theta *= std::pow(alpha, dim / (dim - 2));
  SPECMOE_CHECK(std::isfinite(rope.theta), rope_object(config)->where("alpha"), " = ", alpha, " is too large");
}

/// Hunyuan-A13B (HunYuanMoEV1): every layer a mixture beside an MLP as wide as an expert; heads are normed after they
/// have turned.
ModelSpec parse_hunyuan_v1_moe(const ConfigReader& config) {
  check_hunyuan(config);
  ModelSpec spec = parse_llama_like(config, hunyuan_v1_moe_defaults(config));
  const std::size_t layers = spec.layers.size();
  const int width = spec.layers.front().ffn.width;
  SPECMOE_CHECK(parse_same(config, "num_shared_expert", 1, layers) == 1, config.where("num_shared_expert"),
                " other than 1 is not supported");
  SPECMOE_CHECK(parse_same(config, "moe_intermediate_size", width, layers) == width,
                config.where("moe_intermediate_size"), " other than intermediate_size = ", width, " is not supported");
  RouterSpec router;
  router.experts = parse_size(config, "num_experts", 1, kMaxExperts);
  router.experts_per_token = parse_same(config, "moe_topk", 1, layers);
  SPECMOE_CHECK(router.experts_per_token <= router.experts, config.where("moe_topk"), " = ", router.experts_per_token,
                " must be at most num_experts = ", router.experts);
  const bool bias = config.boolean("attention_bias", false);
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = bias;
    layer.attention.output_bias = bias;
    layer.attention.qk_norm = QkNorm::kPerHeadAfterRope;
    set_alpha_rope(config, layer.attention);
    layer.ffn.router = router;
    layer.ffn.shared = SharedExpertSpec{width, false};
  }
  const std::string attention = "layers.{layer}.self_attn.", block = "layers.{layer}.mlp.";
  spec.names.query_norm = {attention + "query_layernorm.weight"};
  spec.names.key_norm = {attention + "key_layernorm.weight"};
  spec.names.router = {block + "gate.wg.weight"};
  spec.names.shared_gate = {block + "shared_mlp.gate_proj"};
  spec.names.shared_up = {block + "shared_mlp.up_proj"};
  spec.names.shared_down = {block + "shared_mlp.down_proj"};
  add_expert_names(spec.names, block, "gate_proj", "up_proj", "down_proj");
  return spec;
}

SPECMOE_MODEL_FAMILY("hunyuan_v1_moe", parse_hunyuan_v1_moe);

}  // namespace
}  // namespace specmoe::nn
