#include "core/nn/family_deepseek.h"
#include "core/nn/family_qwen.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults exaone_moe_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 102400;
  defaults.intermediate_size = 16384;
  defaults.kv_heads = 32;
  defaults.norm_eps = 1e-5;
  defaults.stop_tokens = {53};
  return defaults;
}

/// Every sliding_window_pattern-th layer is a full one where layer_types is not there.
std::vector<bool> sliding_layers(const ConfigReader& config, int layers, int window) {
  const char* key = "sliding_window_pattern";
  const bool listed = config.has("layer_types");
  SPECMOE_CHECK(window > 0 || listed, config.where("sliding_window"), " is null, and layer_types is missing");
  const int pattern = listed ? 1 : parse_size(config, key, 4);
  return layers_of_type(config, layers, "sliding_attention", [&](int layer) { return (layer + 1) % pattern != 0; });
}

/// Layers with a window turn their heads, full ones do not, unless there is no window at all.
void set_exaone_attention(const ConfigReader& config, ModelSpec& spec) {
  const int window = parse_window(config, 4096);
  const auto slides = sliding_layers(config, static_cast<int>(spec.layers.size()), window);
  for (std::size_t i = 0; i < slides.size(); ++i) {
    AttentionSpec& attention = spec.layers[i].attention;
    SPECMOE_CHECK(!slides[i] || window > 0, config.where("sliding_window"),
                  " is null, but layer_types has sliding_attention");
    attention.window = slides[i] ? window : 0;
    if (window > 0 && !slides[i]) attention.rope.reset();
  }
}

/// K-EXAONE 236B-A23B: attention with norms per head, windows in most layers, and the mixtures of DeepSeek-V3. Its
/// prediction modules are left out.
ModelSpec parse_exaone_moe(const ConfigReader& config) {
  const CommonDefaults defaults = exaone_moe_defaults();
  ModelSpec spec = parse_llama_like(config, defaults);
  set_per_head_norms(spec);
  set_exaone_attention(config, spec);
  const int shared = parse_size(config, "num_shared_experts", 1, kMaxExperts);
  const RouterSpec counts = parse_router(config, {"num_experts", "num_local_experts"}, 64, 8);
  set_deepseek_mixtures(config, spec, {shared, 1024, leading_dense_layers(config, defaults), 2.5},
                        parse_sigmoid_router(config, counts, true, 1, 1));
  spec.names.choice_bias.emplace_back("layers.{layer}.mlp.e_score_correction_bias");
  spec.names.ignored.emplace_back("mtp.");
  return spec;
}

SPECMOE_MODEL_FAMILY("exaone_moe", parse_exaone_moe);

}  // namespace
}  // namespace specmoe::nn
