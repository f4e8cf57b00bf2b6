#include "core/nn/family_deepseek.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults v2_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 102400;
  return defaults;
}

CommonDefaults v3_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 129280;
  defaults.hidden_size = 7168;
  defaults.intermediate_size = 18432;
  defaults.layers = 61;
  defaults.heads = 128;
  defaults.max_positions = 4096;
  defaults.stop_tokens = {1};
  return defaults;
}

void add_latent_names(TensorNames& names) {
  const std::string attention = "layers.{layer}.self_attn.";
  names.query_down = {attention + "q_a_proj"};
  names.query_down_norm = {attention + "q_a_layernorm.weight"};
  names.query_up = {attention + "q_b_proj"};
  names.kv_down = {attention + "kv_a_proj_with_mqa"};
  names.kv_down_norm = {attention + "kv_a_layernorm.weight"};
  names.kv_up = {attention + "kv_b_proj"};
}

void add_mixture_names(TensorNames& names) {
  const std::string block = "layers.{layer}.mlp.";
  names.router = {block + "gate.weight"};
  names.choice_bias = {block + "gate.e_score_correction_bias"};
  names.shared_gate = {block + "shared_experts.gate_proj"};
  names.shared_up = {block + "shared_experts.up_proj"};
  names.shared_down = {block + "shared_experts.down_proj"};
  add_expert_names(names, block, "gate_proj", "up_proj", "down_proj");
}

/// YaRN sharpens the scores beside the cosines and sines when mscale_all_dim is given.
double score_scale(const ConfigReader& config, int head_dim, const RopeSpec& rope) {
  const double plain = std::pow(head_dim, -0.5);
  const auto object = rope_object(config);
  if (rope.kind == RopeKind::kDefault || !object || !object->has("mscale_all_dim")) return plain;
  const double weight = object->number("mscale_all_dim", 0.0);
  const double sharpness = weight == 0.0 ? 1.0 : yarn_sharpness(rope.factor, weight);
  return plain * sharpness * sharpness;
}

/// Sizes of the latent attention where config.json says none.
LatentSpec deepseek_latent() {
  LatentSpec latent;
  latent.query_rank = 1536;
  latent.kv_rank = 512;
  latent.nope_dim = 128;
  latent.rope_dim = 64;
  latent.value_dim = 128;
  return latent;
}

/// The norms of the low-rank vectors keep LatentSpec's epsilon, whatever rms_norm_eps says.
///
/// latent  defaults of its sizes
AttentionSpec parse_latent_attention(const ConfigReader& config, const ModelSpec& spec, const CommonDefaults& defaults,
                                     LatentSpec latent) {
  AttentionSpec attention;
  attention.heads = parse_size(config, "num_attention_heads", defaults.heads, kMaxHeads);
  attention.kv_heads = attention.heads;
  if (config.has("num_key_value_heads")) {
    const int kv_heads = parse_size(config, "num_key_value_heads", attention.heads, kMaxHeads);
    SPECMOE_CHECK(kv_heads == attention.heads, config.where("num_key_value_heads"), " = ", kv_heads,
                  " must be num_attention_heads = ", attention.heads, ": all heads share the latent vectors");
  }
  const bool plain = config.contains("q_lora_rank") && !config.has("q_lora_rank");
  latent.query_rank = plain ? 0 : parse_size(config, "q_lora_rank", latent.query_rank);
  latent.kv_rank = parse_size(config, "kv_lora_rank", latent.kv_rank);
  latent.nope_dim = parse_size(config, "qk_nope_head_dim", latent.nope_dim, kMaxHeads);
  latent.rope_dim = parse_size(config, "qk_rope_head_dim", latent.rope_dim, kMaxHeads);
  latent.value_dim = parse_size(config, "v_head_dim", latent.value_dim, kMaxHeads);
  SPECMOE_CHECK(latent.rope_dim % 2 == 0, config.where("qk_rope_head_dim"), " must be even, got ", latent.rope_dim);
  attention.head_dim = latent.nope_dim + latent.rope_dim;
  attention.latent = latent;
  attention.qkv_bias = config.boolean("attention_bias", false);
  attention.output_bias = attention.qkv_bias;
  attention.rope = parse_rope(config, latent.rope_dim, spec.max_positions, defaults.rope_theta);
  attention.rope->interleaved = true;
  attention.scale = static_cast<float>(score_scale(config, attention.head_dim, *attention.rope));
  return attention;
}

ModelSpec parse_deepseek(const ConfigReader& config, const CommonDefaults& defaults, const LatentSpec& latent,
                         const DeepseekMixture& mixture, const RouterSpec& router) {
  SPECMOE_CHECK(config.integer("moe_layer_freq", 1, 1, kMaxLayers) == 1, config.where("moe_layer_freq"),
                " other than 1 is not supported");
  SPECMOE_CHECK(!config.boolean("mlp_bias", false), config.where("mlp_bias"), " is not supported for this model_type");
  ModelSpec spec = parse_frame(config, defaults);
  add_latent_names(spec.names);
  LayerSpec layer;
  layer.attention = parse_latent_attention(config, spec, defaults, latent);
  layer.ffn.width = parse_size(config, "intermediate_size", defaults.intermediate_size);
  spec.layers.assign(spec.layers.size(), layer);
  set_deepseek_mixtures(config, spec, mixture, router);
  return spec;
}

}  // namespace

void expect_text(const ConfigReader& config, const char* key, const char* known) {
  const std::string value = config.has(key) ? config.text(key, known) : known;
  SPECMOE_CHECK(value == known, config.where(key), " '", value,
                "' is not supported for this model_type; known: ", known);
}

void set_deepseek_mixtures(const ConfigReader& config, ModelSpec& spec, const DeepseekMixture& defaults,
                           const RouterSpec& router) {
  add_mixture_names(spec.names);
  FfnSpec mixture;
  mixture.width = parse_size(config, "moe_intermediate_size", defaults.expert_width);
  mixture.router = router;
  mixture.router->scale = static_cast<float>(config.number("routed_scaling_factor", defaults.weight_scale, 0.0));
  const int shared = parse_size(config, "n_shared_experts", defaults.shared_experts, kMaxExperts);
  SPECMOE_CHECK(std::int64_t{shared} * mixture.width <= kMaxSize, config.where("n_shared_experts"), " = ", shared,
                " times moe_intermediate_size = ", mixture.width, " is too wide");
  mixture.shared = SharedExpertSpec{shared * mixture.width, false};
  const auto first = config.integer("first_k_dense_replace", defaults.first_mixture, 0, kMaxLayers);
  for (auto i = static_cast<std::size_t>(first); i < spec.layers.size(); ++i) spec.layers[i].ffn = mixture;
}

int leading_dense_layers(const ConfigReader& config, const CommonDefaults& defaults) {
  const char* key = "mlp_layer_types";
  const auto types = config.texts(key);
  if (!types) return 1;
  const int layers = parse_size(config, "num_hidden_layers", defaults.layers, kMaxLayers);
  SPECMOE_CHECK(static_cast<int>(types->size()) == layers, config.where(key), " must have one entry for each of ",
                layers, " layers, got ", types->size());
  const auto sparse = std::find_if(types->begin(), types->end(), [](const auto& type) { return type != "dense"; });
  SPECMOE_CHECK(std::all_of(sparse, types->end(), [](const auto& type) { return type == "sparse"; }), config.where(key),
                " must be dense layers and then sparse ones");
  const int dense = static_cast<int>(sparse - types->begin());
  SPECMOE_CHECK(config.integer("first_k_dense_replace", dense, 0, kMaxLayers) == dense,
                config.where("first_k_dense_replace"), " contradicts ", key, ", which has ", dense, " dense layers");
  return dense;
}

RouterSpec parse_expert_groups(const ConfigReader& config, RouterSpec router, int groups, int kept_groups) {
  constexpr int kMostGroups = 64;
  const auto count = [&config](const char* key, int absent, int most) {
    return config.contains(key) && !config.has(key) ? 1 : parse_size(config, key, absent, most);
  };
  router.groups = count("n_group", groups, kMostGroups);
  router.kept_groups = count("topk_group", kept_groups, kMaxExperts);
  SPECMOE_CHECK(router.experts % router.groups == 0, config.where("n_group"), " = ", router.groups,
                " must divide n_routed_experts = ", router.experts);
  SPECMOE_CHECK(router.experts / router.groups >= 2, config.where("n_group"), " = ", router.groups,
                " leaves groups of less than two experts");
  SPECMOE_CHECK(router.kept_groups <= router.groups, config.where("topk_group"), " = ", router.kept_groups,
                " must be at most n_group = ", router.groups);
  SPECMOE_CHECK(router.experts / router.groups * router.kept_groups >= router.experts_per_token,
                config.where("num_experts_per_tok"), " = ", router.experts_per_token,
                " experts do not fit topk_group = ", router.kept_groups, " groups");
  return router;
}

RouterSpec parse_sigmoid_router(const ConfigReader& config, RouterSpec router, bool renormalise, int groups,
                                int kept_groups) {
  expect_text(config, "scoring_func", "sigmoid");
  expect_text(config, "topk_method", "noaux_tc");
  router.score = RouterSpec::Score::kSigmoid;
  router.choice_bias = true;
  router.renormalise = config.boolean("norm_topk_prob", renormalise);
  router.epsilon = 1e-20F;
  router.group_score = RouterSpec::GroupScore::kSumOfTopTwo;
  return parse_expert_groups(config, router, groups, kept_groups);
}

void leave_out_layers(ModelSpec& spec, std::int64_t count) {
  const auto first = static_cast<std::int64_t>(spec.layers.size());
  for (std::int64_t i = 0; i < count; ++i) spec.names.ignored.push_back(concat("layers.", first + i, "."));
}

void set_prediction_layers(const ConfigReader& config, ModelSpec& spec) {
  for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers"}) {
    const auto count = config.has(key) ? config.integer(key, 0, 0, kMaxLayers) : 0;
    spec.prediction_layers = std::max(spec.prediction_layers, static_cast<int>(count));
  }
  leave_out_layers(spec, spec.prediction_layers);
}

ModelSpec parse_deepseek_v3_like(const ConfigReader& config, const CommonDefaults& defaults, const LatentSpec& latent,
                                 const DeepseekMixture& mixture, const RouterSpec& router) {
  ModelSpec spec = parse_deepseek(config, defaults, latent, mixture, router);
  const bool interleaved = config.boolean("rope_interleave", true);
  for (LayerSpec& layer : spec.layers) layer.attention.rope->interleaved = interleaved;
  set_prediction_layers(config, spec);
  return spec;
}

namespace {

/// DeepSeek-V2 and V2-Lite (arXiv:2405.04434). Chosen weights are never renormalised; norm_topk_prob is not read.
ModelSpec parse_deepseek_v2(const ConfigReader& config) {
  expect_text(config, "scoring_func", "softmax");
  SPECMOE_CHECK(config.has("num_experts_per_tok"), config.where("num_experts_per_tok"), " is missing");
  RouterSpec router = parse_router(config, {"n_routed_experts", "num_experts"}, 64, 0);
  router.renormalise = false;
  const std::string method = config.has("topk_method") ? config.text("topk_method", "greedy") : "greedy";
  SPECMOE_CHECK(method == "greedy" || method == "group_limited_greedy", config.where("topk_method"), " '", method,
                "' is not supported; known: greedy, group_limited_greedy");
  if (method == "group_limited_greedy") {
    for (const char* key : {"n_group", "topk_group"}) {
      SPECMOE_CHECK(config.has(key), config.where(key), " is missing, and topk_method group_limited_greedy needs it");
    }
    router = parse_expert_groups(config, router, 1, 1);
  }
  return parse_deepseek(config, v2_defaults(), deepseek_latent(), {2, 1407, 0, 1.0}, router);
}

SPECMOE_MODEL_FAMILY("deepseek_v2", parse_deepseek_v2);

/// DeepSeek-V3 and R1 (arXiv:2412.19437).
ModelSpec parse_deepseek_v3(const ConfigReader& config) {
  const RouterSpec counts = parse_router(config, {"n_routed_experts", "num_local_experts"}, 256, 8);
  const RouterSpec router = parse_sigmoid_router(config, counts, true, 8, 4);
  return parse_deepseek_v3_like(config, v3_defaults(), deepseek_latent(), {1, 2048, 3, 2.5}, router);
}

SPECMOE_MODEL_FAMILY("deepseek_v3", parse_deepseek_v3);

/// Kimi K2 (arXiv:2507.20534) is DeepSeek-V3 in other sizes, all of which its config.json gives.
ModelSpec parse_kimi_k2(const ConfigReader& config) { return parse_deepseek_v3(config); }

SPECMOE_MODEL_FAMILY("kimi_k2", parse_kimi_k2);

}  // namespace
}  // namespace specmoe::nn
