// Every field of config.json and every tensor matters: changing one must break parity or loading. This is what shows
// that the parity tests look at all of them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

using nlohmann::json;

/// Fields without influence on what a forward pass computes.
const std::set<std::string> kNeutral = {"_sliding_window_pattern",
                                        "architectures",
                                        "attention_dropout",
                                        "attn_logit_softcapping",
                                        "bos_token_id",
                                        "dtype",
                                        "eod_token_id",
                                        "eos_token_id",
                                        "initializer_range",
                                        "input_jitter_noise",
                                        "max_position_embeddings",
                                        "num_mtp_layers",
                                        "num_mtp_modules",
                                        "num_nextn_predict_layers",
                                        "output_router_logits",
                                        "pad_token_id",
                                        "pretraining_tp",
                                        "qk_head_dim",
                                        "router_aux_loss_coef",
                                        "sep_token_id",
                                        "seq_aux",
                                        "torch_dtype",
                                        "transformers_version",
                                        "use_cache",
                                        "use_mtp"};

/// Fields that another one overrules in a checkpoint; kCombined turns them on.
const std::map<std::string, std::set<std::string>> kOverruled = {
    {"deepseek_v2_a", {"head_dim", "n_group", "norm_topk_prob", "topk_group"}},
    {"deepseek_v2_b", {"head_dim", "norm_topk_prob"}},
    {"deepseek_v3_a", {"head_dim"}},
    {"deepseek_v3_b", {"head_dim"}},
    {"deepseek_v3_fp8", {"head_dim"}},
    {"dots1_a", {"max_window_layers"}},
    {"hunyuan_v1_moe_b", {"attention_head_dim", "factor"}},  // head_dim and alpha are there
    {"llama4_text_dense",
     {"attn_scale", "floor_scale", "interleave_moe_layer_step", "intermediate_size", "num_experts_per_tok",
      "num_local_experts", "router_jitter_noise"}},
    {"llama4_text_lists", {"interleave_moe_layer_step", "no_rope_layer_interval", "router_jitter_noise"}},
    {"llama4_text_maverick", {"router_jitter_noise"}},
    {"llama4_text_scout",
     {"interleave_moe_layer_step", "intermediate_size_mlp", "no_rope_layer_interval", "router_jitter_noise"}},
    {"llama_dynamic", {"factor"}},  // sets in beyond the context, where we refuse
    {"llama_longrope_long", {"short_factor"}},
    {"llama_longrope_short", {"long_factor", "original_max_position_embeddings"}},
    {"minimax_m2_a", {"router_jitter_noise"}},
    {"minimax_m2_b", {"router_jitter_noise"}},
    {"mixtral_a", {"router_jitter_noise"}},
    {"mixtral_b", {"router_jitter_noise"}},
    {"mixtral_c", {"router_jitter_noise"}},
    {"olmoe_a", {"moe_intermediate_size"}},
    {"olmoe_b", {"clip_qkv", "moe_intermediate_size"}},
    {"phimoe_a", {"long_factor", "long_mscale", "original_max_position_embeddings"}},
    {"phimoe_b", {"long_factor", "original_max_position_embeddings", "short_mscale"}},
    {"qwen2_b", {"max_window_layers"}},
    {"qwen2_moe_a", {"max_window_layers"}},
    {"qwen2_moe_b", {"max_window_layers", "sliding_window"}},
    {"qwen3_a", {"max_window_layers", "sliding_window", "use_sliding_window"}},
    {"qwen3_moe_a", {"intermediate_size", "sliding_window", "use_sliding_window"}},
    {"solar_open_b", {"intermediate_size"}},  // no layer is dense
};

/// Changes of several fields, or of fields that a checkpoint leaves at their defaults.
struct Combined {
  std::string fixture;
  std::string patch;  // JSON
};
const std::vector<Combined> kCombined = {
    {"llama_yarn", R"({"rope_parameters": {"beta_slow": 4.0}})"},
    {"llama_yarn", R"({"rope_parameters": {"truncate": false}})"},
    {"llama_yarn", R"({"rope_parameters": {"attention_factor": 1.5}})"},
    {"llama_yarn", R"({"rope_parameters": {"mscale": 0.5, "mscale_all_dim": 2.0}})"},
    {"llama_yarn", R"({"original_max_position_embeddings": 96})"},
    {"llama_default", R"({"rope_parameters": {"rope_theta": 500000.0}})"},
    {"llama_default", R"({"attention_bias": true})"},
    {"llama_default", R"({"mlp_bias": true})"},
    {"llama_default", R"({"head_dim": 8})"},
    {"llama_longrope_long", R"({"rope_scaling": {"attention_factor": 1.0}})"},
    {"llama_longrope_long", R"({"rope_scaling": {"original_max_position_embeddings": 128}})"},
    {"llama_longrope_short", R"({"rope_parameters": {"original_max_position_embeddings": 8}})"},
    {"mistral_a", R"({"layer_types": ["full_attention", "sliding_attention"]})"},
    {"mistral_b", R"({"sliding_window": 16})"},
    {"mistral_b", R"({"num_key_value_heads": 4})"},
    {"qwen3_a", R"({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 1, "layer_types": null})"},
    {"gemma3_text_a", R"({"tie_word_embeddings": false})"},
    {"mixtral_a", R"({"sliding_window": 16})"},
    {"mixtral_c", R"({"rope_theta": 10000.0})"},
    {"mixtral_c", R"({"num_key_value_heads": 4})"},
    {"qwen2_moe_b", R"({"use_sliding_window": true, "sliding_window": 16})"},
    {"qwen3_moe_a", R"({"use_sliding_window": true, "sliding_window": 16})"},
    {"olmoe_b", R"({"clip_qkv": 0.5})"},
    {"granitemoe_a", R"({"num_key_value_heads": 2})"},
    {"phimoe_a", R"({"original_max_position_embeddings": 8})"},
    {"phimoe_b", R"({"original_max_position_embeddings": 128})"},
    {"gpt_oss_a", R"({"attention_bias": false})"},
    {"gpt_oss_a", R"({"swiglu_limit": 6.0})"},
    {"deepseek_v2_a", R"({"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1})"},
    {"deepseek_v3_b", R"({"rope_scaling": {"mscale_all_dim": 0.0}})"},
    {"glm4_moe_a", R"({"use_qk_norm": true})"},
    {"glm4_moe_b", R"({"partial_rotary_factor": 0.75})"},
    {"llama4_text_scout", R"({"attn_temperature_tuning": false})"},
    {"llama4_text_dense", R"({"attn_temperature_tuning": true})"},
};

bool parity(const Fixture& fixture, const std::string& folder) {
  const auto model = load(folder);
  const auto cache = model->new_cache(64);
  const ForwardResult result = append(*model, *cache, fixture.ids);
  if (result.logits.size() != fixture.logits.size()) return false;
  float largest = 1.0F;
  for (const float value : fixture.logits) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < result.logits.size(); ++i) {
    if (!(std::abs(result.logits[i] - fixture.logits[i]) <= 1e-4F * largest)) return false;
  }
  return true;
}

/// True when the folder no longer loads or no longer gives the same logits.
bool breaks(const Fixture& fixture, const std::string& folder) {
  try {
    return !parity(fixture, folder);
  } catch (const Error&) {
    return true;
  }
}

json other_list(const json& list) {
  json other = list;
  if (list.empty()) {
    other.push_back(1);
  } else if (list[0].is_string()) {
    const bool all_full =
        std::all_of(list.begin(), list.end(), [](const json& kind) { return kind == "full_attention"; });
    for (json& kind : other) kind = all_full ? "sliding_attention" : "full_attention";
  } else {
    for (json& number : other) {
      if (number.is_number_integer())
        number = 1 - number.get<long>();
      else
        number = number.get<double>() * 1.5;
    }
  }
  return other;
}

json other_value(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number_integer()) return value.get<long>() + 1;
  if (value.is_number()) return value.get<double>() * 1.5 + 1;
  if (value.is_null()) return 6;  // neither the derived head_dim nor wider than the text
  if (value.is_array()) return other_list(value);
  return "other";
}

class Mutation : public ::testing::TestWithParam<std::string> {
 protected:
  /// Changes every field of the object at `pointer` in turn.
  void mutate_fields(const json::json_pointer& pointer) {
    const json original = copy_.config();
    for (const auto& [key, value] : original[pointer].items()) {
      if (kNeutral.contains(key) || is_neutral_here(key, value)) continue;
      if (value.is_object()) {
        mutate_fields(pointer / key);
        continue;
      }
      json changed = original;
      changed[pointer / key] = other_value(value);
      copy_.set_config(changed);
      EXPECT_TRUE(breaks(fixture_, copy_.path()))
          << GetParam() << ": " << pointer / key << " = " << changed[pointer / key] << " changes nothing";
    }
    copy_.set_config(original);
  }
  /// A checkpoint with both tensors is not tied, whatever its configuration says (transformers 5).
  bool is_neutral_here(const std::string& key, const json& value) const {
    const auto overruled = kOverruled.find(GetParam());
    return (overruled != kOverruled.end() && overruled->second.contains(key)) ||
           (key == "tie_word_embeddings" && value == false);
  }

  Fixture fixture_ = load_fixture(GetParam());
  FolderCopy copy_{fixture_.folder};
};

TEST_P(Mutation, EveryConfigField) {
  ASSERT_TRUE(parity(fixture_, copy_.path()));
  mutate_fields(json::json_pointer());
}

std::size_t count(const std::vector<std::int64_t>& shape) {
  std::size_t product = 1;
  for (const std::int64_t size : shape) product *= static_cast<std::size_t>(size);
  return product;
}

/// Negates one tensor at a time, in place.
TEST_P(Mutation, EveryTensor) {
  for (const auto& entry : std::filesystem::directory_iterator(copy_.path())) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("model") || !file.ends_with(".safetensors")) continue;
    const std::string original = read_file(entry.path());
    std::uint64_t header = 0;
    std::memcpy(&header, original.data(), sizeof(header));
    const std::vector<Tensor> tensors = SafetensorsFile(entry.path().string()).tensors();
    for (const Tensor& tensor : tensors) {
      std::string bytes = original;
      if (tensor.name.find("enorm") != std::string::npos) continue;  // of a layer that is left out
      const std::size_t width = (tensor.end - tensor.begin) / count(tensor.shape);
      for (std::size_t at = tensor.begin + width - 1; at < tensor.end; at += width) bytes[8 + header + at] ^= '\x80';
      write_file(entry.path(), bytes);
      EXPECT_TRUE(breaks(fixture_, copy_.path())) << GetParam() << ": " << tensor.name << " has no influence";
    }
    write_file(entry.path(), original);
  }
  EXPECT_TRUE(parity(fixture_, copy_.path()));
}

INSTANTIATE_TEST_SUITE_P(Models, Mutation, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

TEST(CombinedMutation, EveryPatch) {
  for (const auto& [name, patch] : kCombined) {
    const Fixture fixture = load_fixture(name);
    const FolderCopy copy(fixture.folder);
    json config = copy.config();
    config.merge_patch(json::parse(patch));
    copy.set_config(config);
    EXPECT_TRUE(breaks(fixture, copy.path())) << name << " " << patch;
  }
}

}  // namespace
}  // namespace specmoe::nn::testing
