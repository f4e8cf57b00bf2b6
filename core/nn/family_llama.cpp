#include "core/nn/model_family.h"

namespace specmoe::nn {

namespace {

/// Llama 1 to 3, Vicuna, SmolLM2. attention_bias covers the output projection too.
ModelSpec parse_llama(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, CommonDefaults{});
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = config.boolean("attention_bias", false);
    layer.attention.output_bias = layer.attention.qkv_bias;
    layer.ffn.bias = config.boolean("mlp_bias", false);
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("llama", parse_llama);

}  // namespace
}  // namespace specmoe::nn
