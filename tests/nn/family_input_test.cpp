// Values of config.json that one family or another must refuse, in one line that names the key.
#include "core/nn/model_family.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

using nlohmann::json;

struct Refused {
  std::string fixture;
  std::string patch;  // JSON, over the fixture's config.json
  std::vector<std::string> parts;
};

const std::vector<Refused> kRefused = {
    {"mistral_a", R"({"sliding_window": -1})", {"sliding_window must be an integer"}},
    {"mistral_a", R"({"layer_types": ["full_attention"]})", {"layer_types must have one entry for each of 2 layers"}},
    {"qwen2_a", R"({"hidden_act": "gelu"})", {"hidden_act 'gelu' is not supported; known: silu"}},
    {"qwen2_a", R"({"use_sliding_window": "yes"})", {"use_sliding_window must be true or false"}},
    {"qwen2_b", R"({"layer_types": ["full_attention"]})", {"layer_types must have one entry for each of 2 layers"}},
    {"qwen2_b", R"({"layer_types": ["full_attention", "linear_attention"]})", {"layer_types 'linear_attention'"}},
    {"qwen2_b", R"({"layer_types": "full_attention"})", {"layer_types must be a list"}},
    {"qwen2_b", R"({"use_sliding_window": false})", {"sliding_attention, which needs use_sliding_window"}},
    {"gemma3_text_a", R"({"hidden_activation": "silu"})", {"hidden_activation 'silu'", "known: gelu_pytorch_tanh"}},
    {"gemma3_text_a", R"({"use_bidirectional_attention": true})", {"use_bidirectional_attention is not supported"}},
    {"gemma3_text_a", R"({"rope_scaling": {"rope_type": "linear", "factor": 2}})", {"exclude each other"}},
    {"gemma3_text_a", R"({"query_pre_attn_scalar": 0})", {"query_pre_attn_scalar must be a finite number above 0"}},
    {"qwen2_moe_a", R"({"mlp_only_layers": [1.5]})", {"mlp_only_layers must be a list of integers"}},
    {"qwen2_moe_a", R"({"decoder_sparse_step": 0})", {"decoder_sparse_step must be an integer from 1"}},
    {"qwen3_moe_a", R"({"num_experts_per_tok": 7})", {"num_experts_per_tok = 7 must be at most", "= 6"}},
    {"olmoe_a", R"({"clip_qkv": -1.0})", {"clip_qkv must be a finite number above 0"}},
    {"granitemoe_a", R"({"logits_scaling": 0.0})", {"logits_scaling must be a finite number above 0"}},
    {"gpt_oss_a", R"({"swiglu_limit": 5.0})", {"swiglu_limit other than 7"}},
    {"gpt_oss_a", R"({"rope_parameters": null})", {"rope_scaling is missing"}},
    {"gpt_oss_a", R"({"quantization_config": {"quant_method": "awq"}})", {"'awq'", "known: fp8, mxfp4"}},
    {"qwen3_moe_a", R"({"quantization_config": {"quant_method": "mxfp4"}})", {"'mxfp4'", "known: fp8"}},
    {"deepseek_v3_fp8",
     R"({"quantization_config": {"weight_block_size": null}})",
     {"weight_block_size must be two numbers"}},
    {"deepseek_v2_a", R"({"topk_method": "noaux_tc"})", {"topk_method 'noaux_tc'", "known: greedy"}},
    {"deepseek_v2_a", R"({"topk_method": "group_limited_greedy"})", {"n_group is missing"}},
    {"deepseek_v2_a", R"({"scoring_func": "sigmoid"})", {"scoring_func 'sigmoid'", "known: softmax"}},
    {"deepseek_v2_a", R"({"moe_layer_freq": 2})", {"moe_layer_freq other than 1"}},
    {"deepseek_v2_a", R"({"mlp_bias": true})", {"mlp_bias is not supported"}},
    {"deepseek_v3_a", R"({"n_group": 3})", {"n_group = 3 must divide n_routed_experts = 8"}},
    {"deepseek_v3_a", R"({"n_group": 8})", {"groups of less than two experts"}},
    {"deepseek_v3_a", R"({"topk_group": 5})", {"topk_group = 5 must be at most n_group = 4"}},
    {"deepseek_v3_a", R"({"num_experts_per_tok": 5})", {"5 experts do not fit topk_group = 2 groups"}},
    {"deepseek_v3_a", R"({"num_key_value_heads": 2})", {"num_key_value_heads = 2 must be num_attention_heads = 4"}},
    {"deepseek_v3_a", R"({"qk_rope_head_dim": 7})", {"qk_rope_head_dim must be even"}},
    {"deepseek_v3_a", R"({"n_shared_experts": 4096, "moe_intermediate_size": 16777216})", {"is too wide"}},
    {"qwen3_a", R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor other than 1 is not supported"}},
    {"glm4_moe_a", R"({"scoring_func": "softmax"})", {"scoring_func 'softmax'", "known: sigmoid"}},
    {"glm4_moe_a", R"({"n_group": 3})", {"n_group = 3 must divide n_routed_experts = 8"}},
    {"glm4_moe_a",
     R"({"rope_parameters": {"partial_rotary_factor": 1.5}})",
     {"rope_parameters.partial_rotary_factor = 1.5 must make an even number of a head's 16 elements turn"}},
    {"glm4_moe_b", R"({"partial_rotary_factor": 0.2})", {"partial_rotary_factor = 0.2 must make an even number"}},
    {"glm4_moe_b", R"({"partial_rotary_factor": 0.05})", {"partial_rotary_factor = 0.05 must make an even number"}},
    {"glm4_moe_lite_a",
     R"({"mlp_layer_types": ["dense", "sparse"]})",
     {"mlp_layer_types must have one entry for each of 3"}},
    {"glm4_moe_lite_a",
     R"({"mlp_layer_types": ["dense", "sparse", "dense"]})",
     {"must be dense layers and then sparse"}},
    {"glm4_moe_lite_a", R"({"first_k_dense_replace": 1})", {"first_k_dense_replace contradicts mlp_layer_types"}},
    {"dots1_a", R"({"n_shared_experts": null})", {"n_shared_experts is missing"}},
    {"dots1_a", R"({"scoring_func": "softmax"})", {"scoring_func 'softmax'", "known: sigmoid"}},
    {"solar_open_a", R"({"scoring_func": "softmax"})", {"scoring_func 'softmax'", "known: sigmoid"}},
    {"solar_open_a", R"({"n_group": 3})", {"n_group = 3 must divide n_routed_experts = 8"}},
    {"solar_open_b", R"({"use_qk_norm": true})", {"use_qk_norm = true is not supported"}},
    {"solar_open_b", R"({"first_k_dense_replace": 1})", {"first_k_dense_replace other than 0 is not supported"}},
    {"solar_open_b", R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor other than 1 is not supported"}},
    {"ernie4_5_moe_a", R"({"use_bias": true})", {"use_bias = true is not supported"}},
    {"ernie4_5_moe_a", R"({"moe_gate_act": "sigmoid"})", {"moe_gate_act 'sigmoid'", "known: softmax"}},
    {"ernie4_5_moe_a", R"({"moe_k": 9})", {"moe_k = 9 must be at most moe_num_experts = 8"}},
    {"ernie4_5_moe_a", R"({"moe_norm_min": 0.01})", {"moe_norm_min = 0.01 is not supported, at most 1e-09"}},
    {"ernie4_5_moe_a", R"({"moe_layer_end_index": -2})", {"moe_layer_end_index must be an integer from -1"}},
    {"ernie4_5_moe_a", R"({"moe_layer_interval": 0})", {"moe_layer_interval must be an integer from 1"}},
    {"ernie4_5_moe_a",
     R"({"moe_num_shared_experts": 4096, "moe_intermediate_size": 16777216})",
     {"moe_num_shared_experts = 4096 times moe_intermediate_size = 16777216 is too wide"}},
    {"exaone_moe_a", R"({"scoring_func": "softmax"})", {"scoring_func 'softmax'", "known: sigmoid"}},
    {"exaone_moe_a", R"({"first_k_dense_replace": 1})", {"first_k_dense_replace contradicts mlp_layer_types"}},
    {"exaone_moe_b", R"({"sliding_window_pattern": "LLLG"})", {"sliding_window_pattern must be an integer"}},
    {"hunyuan_v1_moe_b", R"({"use_qk_norm": false})", {"use_qk_norm = false is not supported"}},
    {"hunyuan_v1_moe_b", R"({"norm_topk_prob": false})", {"norm_topk_prob = false is not supported"}},
    {"hunyuan_v1_moe_b", R"({"use_mixed_mlp_moe": false})", {"use_mixed_mlp_moe = false is not supported"}},
    {"hunyuan_v1_moe_b", R"({"use_cla": true})", {"use_cla = true is not supported"}},
    {"hunyuan_v1_moe_b", R"({"use_mla": true})", {"use_mla = true is not supported"}},
    {"hunyuan_v1_moe_b", R"({"moe_drop_tokens": true})", {"moe_drop_tokens = true is not supported"}},
    {"hunyuan_v1_moe_b", R"({"norm_type": "layer"})", {"norm_type 'layer'", "known: rms"}},
    {"hunyuan_v1_moe_b", R"({"moe_layer_num_skipped": 1})", {"moe_layer_num_skipped other than 0"}},
    {"hunyuan_v1_moe_b", R"({"routed_scaling_factor": 2.0})", {"routed_scaling_factor other than 1"}},
    {"hunyuan_v1_moe_b", R"({"num_shared_expert": [2, 2]})", {"num_shared_expert other than 1"}},
    {"hunyuan_v1_moe_b", R"({"moe_intermediate_size": [14, 14]})", {"other than intermediate_size = 12"}},
    {"hunyuan_v1_moe_b", R"({"moe_topk": [3, 2]})", {"moe_topk must be one number above 0 for all layers"}},
    {"hunyuan_v1_moe_b", R"({"moe_topk": [3, 3, 3]})", {"moe_topk must have one entry for each of 2 layers, got 3"}},
    {"hunyuan_v1_moe_b", R"({"moe_topk": 9})", {"moe_topk = 9 must be at most num_experts = 8"}},
    {"hunyuan_v1_moe_b", R"({"rope_scaling": {"alpha": 0}})", {"rope_scaling.alpha must be a finite number above 0"}},
    {"hunyuan_v1_moe_b", R"({"rope_scaling": {"alpha": 1e300}})", {"rope_scaling.alpha = 1e+300 is too large"}},
    {"minimax_m2_b", R"({"scoring_func": "softmax"})", {"scoring_func 'softmax'", "known: sigmoid"}},
    {"minimax_m2_b", R"({"use_qk_norm": false})", {"use_qk_norm = false is not supported"}},
    {"minimax_m2_b", R"({"use_routing_bias": false})", {"use_routing_bias = false is not supported"}},
    {"minimax_m2_b", R"({"qk_norm_type": "per_head"})", {"qk_norm_type 'per_head'", "known: per_layer"}},
    {"minimax_m2_b", R"({"attn_type_list": [1, 0]})", {"attn_type_list other than 1"}},
    {"minimax_m2_b", R"({"shared_intermediate_size": 8})", {"shared_intermediate_size other than 0"}},
    {"minimax_m2_b", R"({"rotary_dim": 18})", {"rotary_dim must be an integer from 1 to 16"}},
    {"llama4_text_scout", R"({"no_rope_layers": [1, 0]})", {"no_rope_layers must have one entry for each of 4 layers"}},
    {"llama4_text_scout", R"({"no_rope_layers": [1, 0, 2, 1]})", {"no_rope_layers must be a list of integers from 0"}},
    {"phimoe_a", R"({"num_experts_per_tok": 3})", {"num_experts_per_tok must be 2"}},
    {"phimoe_a", R"({"router_jitter_noise": -0.1})", {"router_jitter_noise must be at least 0"}},
    {"phimoe_a", R"({"rope_parameters": {"long_mscale": null}})", {"long_mscale is missing"}},
    {"llama_longrope_long", R"({"rope_scaling": {"long_factor": [1.0, 2.0]}})", {"long_factor must have 6 numbers"}},
    {"llama_longrope_long", R"({"rope_scaling": {"long_factor": null}})", {"long_factor is missing"}},
    {"llama_longrope_long",
     R"({"rope_scaling": {"short_factor": [1, 2, 3, 4, 5, 0]}})",
     {"short_factor must be above 0"}},
    {"llama_longrope_long",
     R"({"rope_scaling": {"short_factor": [1, 2, 3, 4, 5, "6"]}})",
     {"must be a list of finite"}},
};

TEST(FamilyInput, Refused) {
  for (const auto& [name, patch, parts] : kRefused) {
    const FolderCopy copy(load_fixture(name).folder);
    json config = copy.config();
    config.merge_patch(json::parse(patch));
    copy.set_config(config);
    const std::string text = load_error(copy.path());
    for (const std::string& part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << name << " " << patch << ": " << part << " not in: " << text;
    }
  }
}

/// Of dots.llm1: no groups are one, no window is none.
TEST(FamilyInput, Nulls) {
  const FolderCopy copy(load_fixture("dots1_a").folder);
  json config = copy.config();
  config["n_group"] = config["topk_group"] = nullptr;
  copy.set_config(config);
  const RouterSpec router = *read_spec(copy.path()).layers.back().ffn.router;
  EXPECT_EQ(router.groups, 1);
  EXPECT_EQ(router.kept_groups, 1);
  copy.set_config("sliding_window", nullptr);
  EXPECT_NE(load_error(copy.path()).find("sliding_window is null, but layer_types has"), std::string::npos);
  config = copy.config();
  config.erase("layer_types");
  copy.set_config(config);
  EXPECT_EQ(read_spec(copy.path()).layers.back().attention.window, 0);
}

/// Of K-EXAONE: without windows full layers turn their heads too.
TEST(FamilyInput, NoWindows) {
  const FolderCopy copy(load_fixture("exaone_moe_a").folder);
  EXPECT_FALSE(read_spec(copy.path()).layers[1].attention.rope);
  copy.set_config("sliding_window", nullptr);
  EXPECT_NE(load_error(copy.path()).find("sliding_window is null, but layer_types has"), std::string::npos);
  json config = copy.config();
  config["layer_types"] = std::vector<std::string>(4, "full_attention");
  copy.set_config(config);
  for (const LayerSpec& layer : read_spec(copy.path()).layers) EXPECT_TRUE(layer.attention.rope);
  config.erase("layer_types");
  copy.set_config(config);
  EXPECT_NE(load_error(copy.path()).find("sliding_window is null, and layer_types is missing"), std::string::npos);
}

}  // namespace
}  // namespace specmoe::nn::testing
