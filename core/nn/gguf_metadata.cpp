#include "core/nn/gguf_metadata.h"

#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;

namespace {

const std::vector<Architecture>& architectures() {
  const KeyName experts{"expert_count", "num_experts"};
  const KeyName local_experts{"expert_count", "num_local_experts"};
  const KeyName expert_width{"expert_feed_forward_length", "moe_intermediate_size"};
  static const std::vector<Architecture> table = {
      {"llama", "llama", {local_experts, {"rope.dimension_count", "head_dim"}}, true},
      {"qwen2", "qwen2", {}},
      {"qwen2moe",
       "qwen2_moe",
       {experts, expert_width, {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"}}},
      {"qwen3", "qwen3", {}},
      {"qwen3moe", "qwen3_moe", {experts, expert_width}, false, {{"norm_topk_prob", true}}},
      {"olmoe", "olmoe", {experts, {"attention.clamp_kqv", "clip_qkv"}}},
      {"gemma3",
       "gemma3_text",
       {{"attention.key_length", "query_pre_attn_scalar"}, {"final_logit_softcapping", "final_logit_softcapping"}}},
      {"granitemoe",
       "granitemoe",
       {local_experts,
        {"attention.scale", "attention_multiplier"},
        {"embedding_scale", "embedding_multiplier"},
        {"residual_scale", "residual_multiplier"},
        {"logit_scale", "logits_scaling"}},
       true},
  };
  return table;
}

const Architecture& architecture_of(const GgufFile& file) {
  const std::string_view* name = file.text("general.architecture");
  SPECMOE_CHECK(name != nullptr, file.path(), ": metadata has no general.architecture; not a model?");
  std::string known;
  for (const Architecture& architecture : architectures()) {
    if (*name == architecture.name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  fail(file.path(), ": architecture '", std::string(name->substr(0, 40)), "' is not supported; known: ", known);
}

}  // namespace

GgufMetadata::GgufMetadata(const GgufFile& file) : file_(file), architecture_(architecture_of(file)) {}

const GgufValue* GgufMetadata::find(const char* name) const {
  const auto found = file_.metadata().find(key(name));
  return found == file_.metadata().end() ? nullptr : &found->second;
}

std::int64_t GgufMetadata::integer(const char* name, std::int64_t absent) const {
  const std::int64_t* value = file_.integer(key(name));
  return value == nullptr ? absent : *value;
}

void GgufMetadata::copy(const std::vector<KeyName>& names, json& config) const {
  for (const KeyName& name : names) {
    const GgufValue* value = find(name.gguf);
    if (value != nullptr) config[name.config] = std::visit([](const auto& held) { return json(held); }, *value);
  }
}

}  // namespace specmoe::nn
