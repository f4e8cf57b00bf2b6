#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults mistral_defaults() {
  CommonDefaults defaults;
  defaults.intermediate_size = 14336;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  return defaults;
}

/// Mistral (Jiang et al. 2023, arXiv:2310.06825): Llama with a window, 4096 wide unless told, in every layer or in
/// those that layer_types names.
ModelSpec parse_mistral(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, mistral_defaults());
  const int window = parse_window(config, 4096);
  const auto slides = layers_of_type(config, static_cast<int>(spec.layers.size()), "sliding_attention",
                                     [window](int) { return window > 0; });
  for (std::size_t i = 0; i < slides.size(); ++i) {
    SPECMOE_CHECK(!slides[i] || window > 0, config.where("sliding_window"), " is null, but layers slide");
    spec.layers[i].attention.window = slides[i] ? window : 0;
  }
  return spec;
}

/// What transformers calls a Mistral with layer_types when it saves one.
ModelSpec parse_ministral(const ConfigReader& config) { return parse_mistral(config); }

SPECMOE_MODEL_FAMILY("mistral", parse_mistral);
SPECMOE_MODEL_FAMILY("ministral", parse_ministral);

}  // namespace
}  // namespace specmoe::nn
