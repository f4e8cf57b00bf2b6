#include "core/nn/model_family.h"

namespace specmoe::nn {

namespace {

CommonDefaults mistral_defaults() {
  CommonDefaults defaults;
  defaults.intermediate_size = 14336;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  return defaults;
}

/// Mistral (Jiang et al. 2023, arXiv:2310.06825): Llama with a window in every layer, 4096 wide unless told.
ModelSpec parse_mistral(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, mistral_defaults());
  const int window = parse_window(config, 4096);
  for (LayerSpec& layer : spec.layers) layer.attention.window = window;
  return spec;
}

SPECMOE_MODEL_FAMILY("mistral", parse_mistral);

}  // namespace
}  // namespace specmoe::nn
