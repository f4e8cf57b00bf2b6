#include "core/nn/gguf_metadata.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;

namespace {

const KeyName kExpertWidth{"expert_feed_forward_length", "moe_intermediate_size"};
const KeyName kExperts{"expert_count", "num_experts"};
const KeyName kLocalExperts{"expert_count", "num_local_experts"};

/// Every gpt-oss was trained with a ramp that is not cut to whole dimensions; GGUF has no key for it.
void complete_gpt_oss(const GgufMetadata& metadata, json& config) {
  config["intermediate_size"] = metadata.need("expert_feed_forward_length");
  if (config.contains("rope_scaling")) config["rope_scaling"]["truncate"] = false;
}

/// Scout and Maverick: chunks, temperature and the layers without positions are the same in all releases, and heads are
/// normed in those of less than 128 experts. GGUF says none of it; llama.cpp has the same figures in its code.
void complete_llama4(const GgufMetadata& metadata, json& config) {
  constexpr std::int64_t kMaverickExperts = 128;
  SPECMOE_CHECK(metadata.integer("attention.sliding_window", 1) != 0, metadata.file().path(), ": ",
                metadata.key("attention.sliding_window"), " = 0 (no chunks) is not supported for llama4");
  config["intermediate_size_mlp"] = metadata.need("feed_forward_length");
  config["intermediate_size"] = metadata.need("expert_feed_forward_length");
  config["interleave_moe_layer_step"] = metadata.need("interleave_moe_layer_step");
  config["use_qk_norm"] = metadata.need("expert_count") != kMaverickExperts;
}

enum Gating : std::int64_t { kUnsaid = 0, kSoftmax = 1, kSigmoid = 2 };

Gating gating_of(const GgufMetadata& metadata) {
  const std::int64_t gating = metadata.integer("expert_gating_func", kUnsaid);
  SPECMOE_CHECK(gating >= kUnsaid && gating <= kSigmoid, metadata.file().path(), ": ",
                metadata.key("expert_gating_func"), " = ", gating,
                " is not supported; known: 1 (softmax), 2 (sigmoid)");
  return static_cast<Gating>(gating);
}

/// For architectures whose scores are of one kind, which older files do not say.
void expect_gating(const GgufMetadata& metadata, Gating wanted) {
  const Gating gating = gating_of(metadata);
  SPECMOE_CHECK(gating == wanted || gating == kUnsaid, metadata.file().path(), ": ", metadata.key("expert_gating_func"),
                " = ", gating, " is not supported for this architecture, expected ", wanted);
}

/// Without the keys all experts are one group.
void copy_groups(const GgufMetadata& metadata, json& config) {
  config["n_group"] = metadata.integer("expert_group_count", 1);
  config["topk_group"] = metadata.integer("expert_group_used_count", 1);
}

/// Softmax scores are DeepSeek-V2, sigmoid ones V3; files of before V3 do not say.
void complete_scores(const GgufMetadata& metadata, json& config) {
  if (gating_of(metadata) == kSigmoid) {
    config["model_type"] = "deepseek_v3";
    return copy_groups(metadata, config);
  }
  const std::int64_t groups = metadata.integer("expert_group_count", 1);
  SPECMOE_CHECK(config["norm_topk_prob"] == false, metadata.file().path(), ": ", metadata.key("expert_weights_norm"),
                " with softmax scores is not supported: DeepSeek-V2 does not renormalise");
  if (groups <= 1) return;
  config["topk_method"] = "group_limited_greedy";
  config["n_group"] = groups;
  config["topk_group"] = metadata.need("expert_group_used_count");
}

/// Multi-head latent attention comes in two forms: as it was trained, or as one wide key head, which is how current
/// files describe it; their *_mla keys hold the widths of before.
void complete_deepseek(const GgufMetadata& metadata, json& config) {
  const auto width = [&](const char* current, const char* old) {
    return metadata.find(current) != nullptr ? metadata.need(current) : metadata.need(old);
  };
  const std::int64_t turned = metadata.need("rope.dimension_count");
  const std::int64_t keys = width("attention.key_length_mla", "attention.key_length");
  SPECMOE_CHECK(0 < turned && turned < keys, metadata.file().path(), ": ", metadata.key("rope.dimension_count"), " = ",
                turned, " must be above 0 and below the keys' width ", keys);
  config["kv_lora_rank"] = metadata.need("attention.kv_lora_rank");
  config["qk_rope_head_dim"] = turned;
  config["qk_nope_head_dim"] = keys - turned;
  config["v_head_dim"] = width("attention.value_length_mla", "attention.value_length");
  config["n_routed_experts"] = metadata.need("expert_count");
  config["first_k_dense_replace"] = metadata.need("leading_dense_block_count");
  config["attention_bias"] = metadata.file().tensor("blk.0.attn_kv_a_mqa.bias") != nullptr;
  config["num_key_value_heads"] = config["num_attention_heads"];
  config.erase("head_dim");  // that of the wide head
  complete_scores(metadata, config);
  // The converter writes a tenth of mscale_all_dim. It leaves out mscale, which is the same in all releases.
  const double* tenth = std::get_if<double>(metadata.find("rope.scaling.yarn_log_multiplier"));
  if (tenth == nullptr || !config.contains("rope_scaling")) return;
  config["rope_scaling"]["mscale"] = config["rope_scaling"]["mscale_all_dim"] = *tenth * 10.0;
}

/// The file has one attention factor for long and short texts. 0 stands for no window.
void complete_phimoe(const GgufMetadata& metadata, json& config) {
  config["lm_head_bias"] = metadata.file().tensor("output.bias") != nullptr;
  if (metadata.integer("attention.sliding_window", 0) == 0) config["sliding_window"] = nullptr;
  if (!config.contains("rope_scaling")) return;
  json& scaling = config["rope_scaling"];
  scaling["short_mscale"] = scaling["long_mscale"] = scaling.value("attention_factor", json(1.0));
}

/// How many elements of a head turn, as the share of them that config.json has: half an element more, for it is cut
/// off.
json turning_share(const GgufMetadata& metadata, const json& config) {
  const std::int64_t head_dim = config["head_dim"].is_number() ? config["head_dim"].get<std::int64_t>() : 0;
  const std::int64_t turning = metadata.integer("rope.dimension_count", head_dim);
  SPECMOE_CHECK(0 < turning && turning <= head_dim, metadata.file().path(), ": ", metadata.key("rope.dimension_count"),
                " = ", turning, " must be above 0 and at most the heads' width ", head_dim);
  return turning == head_dim ? 1.0 : (static_cast<double>(turning) + 0.5) / static_cast<double>(head_dim);
}

void complete_sigmoid(const GgufMetadata& metadata, json&) { expect_gating(metadata, kSigmoid); }
void complete_softmax(const GgufMetadata& metadata, json&) { expect_gating(metadata, kSoftmax); }

void complete_sigmoid_groups(const GgufMetadata& metadata, json& config) {
  expect_gating(metadata, kSigmoid);
  copy_groups(metadata, config);
}

/// GLM-4.5 to 4.7; Solar Open comes under this name too, without norms of heads and with heads that turn as a whole.
void complete_glm4_moe(const GgufMetadata& metadata, json& config) {
  complete_sigmoid_groups(metadata, config);
  config["partial_rotary_factor"] = turning_share(metadata, config);
  config["use_qk_norm"] = metadata.file().tensor("blk.0.attn_q_norm.weight") != nullptr;
}

/// Mixtures of DeepSeek-V3 behind the attention of others.
Architecture sigmoid_mixture(const char* name, const char* model_type,
                             void (*complete)(const GgufMetadata& metadata, json& config)) {
  Architecture architecture{name, model_type};
  architecture.keys = {kExpertWidth,
                       {"expert_count", "n_routed_experts"},
                       {"expert_shared_count", "n_shared_experts"},
                       {"leading_dense_block_count", "first_k_dense_replace"},
                       {"expert_weights_scale", "routed_scaling_factor"},
                       {"expert_weights_norm", "norm_topk_prob"}};
  architecture.fixed = {{"first_k_dense_replace", 0}, {"routed_scaling_factor", 1.0}, {"norm_topk_prob", false}};
  architecture.complete = complete;
  return architecture;
}

std::vector<Architecture> known_architectures() {
  std::vector<Architecture> all = {
      {"llama", "llama", {kLocalExperts, {"rope.dimension_count", "head_dim"}}, true},
      {"qwen2", "qwen2", {}},
      {"qwen2moe",
       "qwen2_moe",
       {kExperts, kExpertWidth, {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"}}},
      {"qwen3", "qwen3", {}},
      {"qwen3moe", "qwen3_moe", {kExperts, kExpertWidth}, false, {{"norm_topk_prob", true}}},
      {"olmoe", "olmoe", {kExperts, {"attention.clamp_kqv", "clip_qkv"}}},
      {"gemma3",
       "gemma3_text",
       {{"attention.key_length", "query_pre_attn_scalar"}, {"final_logit_softcapping", "final_logit_softcapping"}}},
      {"granitemoe",
       "granitemoe",
       {kLocalExperts,
        {"attention.scale", "attention_multiplier"},
        {"embedding_scale", "embedding_multiplier"},
        {"residual_scale", "residual_multiplier"},
        {"logit_scale", "logits_scaling"}},
       true},
      {"gpt-oss", "gpt_oss", {kLocalExperts}, false, json::object(), complete_gpt_oss},
      {"llama4", "llama4_text", {kLocalExperts}, false, json::object(), complete_llama4},
      {"phimoe", "phimoe", {kLocalExperts}, false, json::object(), complete_phimoe},
      sigmoid_mixture("glm4moe", "glm4_moe", complete_glm4_moe),
      sigmoid_mixture("dots1", "dots1", complete_sigmoid_groups),
      {"minimax-m2",
       "minimax_m2",
       {kLocalExperts, {"rope.dimension_count", "rotary_dim"}},
       false,
       json::object(),
       complete_sigmoid},
      {"ernie4_5-moe",
       "ernie4_5_moe",
       {kExpertWidth,
        {"expert_count", "moe_num_experts"},
        {"expert_used_count", "moe_k"},
        {"expert_shared_count", "moe_num_shared_experts"},
        {"interleave_moe_layer_step", "moe_layer_interval"},
        {"leading_dense_block_count", "moe_layer_start_index"}},
       false,
       {{"moe_num_shared_experts", 0}, {"moe_layer_interval", 1}, {"moe_layer_start_index", 0}},
       complete_softmax},
      {"hunyuan-moe",
       "hunyuan_v1_moe",
       {kExpertWidth, kExperts, {"expert_used_count", "moe_topk"}, {"expert_shared_count", "num_shared_expert"}},
       false,
       json::object(),
       complete_softmax},
  };
  Architecture deepseek{"deepseek2", "deepseek_v2"};
  deepseek.keys = {kExpertWidth,
                   {"attention.q_lora_rank", "q_lora_rank"},
                   {"expert_shared_count", "n_shared_experts"},
                   {"expert_weights_scale", "routed_scaling_factor"},
                   {"expert_weights_norm", "norm_topk_prob"}};
  deepseek.fixed = {{"q_lora_rank", nullptr}, {"routed_scaling_factor", 1.0}, {"norm_topk_prob", false}};
  deepseek.complete = complete_deepseek;
  all.push_back(std::move(deepseek));
  return all;
}

}  // namespace

const std::vector<Architecture>& gguf_architectures() {
  static const std::vector<Architecture> table = known_architectures();
  return table;
}

}  // namespace specmoe::nn
