#include <algorithm>

#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

int parse_size(const ConfigReader& config, const std::string& key, int absent, std::int64_t most) {
  return static_cast<int>(config.integer(key, absent, 1, most));
}

int parse_window(const ConfigReader& config, int absent) {
  if (!config.has("sliding_window")) return config.contains("sliding_window") ? 0 : absent;
  return parse_size(config, "sliding_window", 0, kMaxPositions);
}

std::vector<bool> layers_of_type(const ConfigReader& config, int layers, const std::string& kind,
                                 const std::function<bool(int layer)>& rule) {
  std::vector<bool> chosen(static_cast<std::size_t>(layers));
  const auto types = config.texts("layer_types");
  SPECMOE_CHECK(!types || types->size() == chosen.size(), config.where("layer_types"),
                " must have one entry for each of ", layers, " layers, got ", types ? types->size() : 0);
  for (int i = 0; i < layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    chosen[at] = types ? (*types)[at] == kind : rule(i);
    SPECMOE_CHECK(!types || chosen[at] || (*types)[at] == "full_attention", config.where("layer_types"), " '",
                  (*types)[at], "' is not supported for this model_type; known: full_attention, ", kind);
  }
  return chosen;
}

RouterSpec parse_router(const ConfigReader& config, const std::vector<std::string>& experts_keys, int experts,
                        int experts_per_token) {
  const auto found = std::find_if(experts_keys.begin(), experts_keys.end(),
                                  [&config](const std::string& key) { return config.has(key); });
  const std::string key = found == experts_keys.end() ? experts_keys.front() : *found;
  RouterSpec router;
  router.experts = parse_size(config, key, experts, kMaxExperts);
  router.experts_per_token = parse_size(config, "num_experts_per_tok", experts_per_token, kMaxExperts);
  SPECMOE_CHECK(router.experts_per_token <= router.experts, config.where("num_experts_per_tok"), " = ",
                router.experts_per_token, " must be at most ", key, " = ", router.experts);
  return router;
}

std::vector<bool> sparse_layers(const ConfigReader& config, int layers) {
  const int step = parse_size(config, "decoder_sparse_step", 1);
  const auto dense = config.integers("mlp_only_layers", 0, kMaxLayers).value_or(std::vector<std::int64_t>{});
  std::vector<bool> sparse;
  for (int i = 0; i < layers; ++i) {
    sparse.push_back((i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end());
  }
  return sparse;
}

void add_expert_names(TensorNames& names, const std::string& block, const std::string& gate, const std::string& up,
                      const std::string& down) {
  const std::string expert = block + "experts.{expert}.";
  names.expert_gate.push_back(expert + gate);
  names.expert_up.push_back(expert + up);
  names.expert_down.push_back(expert + down);
  names.fused_gate_up.push_back(block + "experts.gate_up_proj");
  names.fused_down.push_back(block + "experts.down_proj");
}

ModelSpec parse_text_part(const ConfigReader& config, const char* model_type, FamilyParser parser) {
  const auto text = config.object("text_config");
  SPECMOE_CHECK(text, config.where("text_config"), " is missing");
  const std::string type = text->text("model_type", model_type);
  SPECMOE_CHECK(type == model_type, text->where("model_type"), " '", type,
                "' is not supported here; known: ", model_type);
  SPECMOE_CHECK(!config.has("quantization_config"), config.where("quantization_config"),
                " is not supported for this model_type; convert the checkpoint to float32, float16 or bfloat16");
  ModelSpec spec = parser(*text);
  spec.names.ignored = {"vision_model.", "vision_tower.", "multi_modal_projector."};
  return spec;
}

}  // namespace specmoe::nn
