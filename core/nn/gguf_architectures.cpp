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

/// Softmax scores are DeepSeek-V2, sigmoid ones V3; files of before V3 do not say. Groups likewise: without the key
/// all experts are one group.
void complete_scores(const GgufMetadata& metadata, json& config) {
  enum Gating : std::int64_t { kUnsaid = 0, kSoftmax = 1, kSigmoid = 2 };
  const std::int64_t gating = metadata.integer("expert_gating_func", kUnsaid);
  SPECMOE_CHECK(gating >= kUnsaid && gating <= kSigmoid, metadata.file().path(), ": ",
                metadata.key("expert_gating_func"), " = ", gating,
                " is not supported; known: 1 (softmax), 2 (sigmoid)");
  const std::int64_t groups = metadata.integer("expert_group_count", 1);
  if (gating == kSigmoid) {
    config["model_type"] = "deepseek_v3";
    config["n_group"] = groups;
    config["topk_group"] = metadata.integer("expert_group_used_count", 1);
    return;
  }
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
