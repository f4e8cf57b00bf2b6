#include <cmath>

#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults gemma3_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 262208;
  defaults.hidden_size = 2304;
  defaults.intermediate_size = 9216;
  defaults.layers = 26;
  defaults.heads = 8;
  defaults.kv_heads = 4;
  defaults.head_dim = 256;
  defaults.max_positions = 131072;
  defaults.tied_embeddings = true;
  defaults.stop_tokens = {1};
  defaults.activation_key = "hidden_activation";
  defaults.activation = "gelu_pytorch_tanh";
  return defaults;
}

struct Ropes {
  RopeSpec full, sliding;
};

/// One rope per kind of layer: nested in rope_parameters (transformers 5), or rope_theta with rope_scaling for full
/// layers and rope_local_base_freq for sliding ones (transformers 4).
Ropes parse_ropes(const ConfigReader& config, int head_dim, int max_positions) {
  const auto nested = config.object("rope_parameters");
  const auto part = [&](const char* name) { return nested ? nested->object(name) : std::nullopt; };
  SPECMOE_CHECK(!nested || part("full_attention") || part("sliding_attention"), config.where("rope_parameters"),
                " must have full_attention and sliding_attention for this model_type");
  const auto scaling = config.object("rope_scaling");
  SPECMOE_CHECK(!nested || !scaling, config.where("rope_scaling"), " and rope_parameters exclude each other");
  const double theta = config.number("rope_theta", 1e6, 0.0);
  const double local_theta = config.number("rope_local_base_freq", 1e4, 0.0);
  const auto full = scaling ? scaling : part("full_attention");
  return {parse_rope_object(config, full, head_dim, max_positions, theta),
          parse_rope_object(config, part("sliding_attention"), head_dim, max_positions, local_theta)};
}

void set_gemma3_layers(const ConfigReader& config, ModelSpec& spec) {
  const int window = parse_window(config, 4096);
  const int pattern = parse_size(config, "sliding_window_pattern", 6);
  const auto slides = layers_of_type(config, static_cast<int>(spec.layers.size()), "sliding_attention",
                                     [pattern](int layer) { return (layer + 1) % pattern != 0; });
  const Ropes ropes = parse_ropes(config, spec.layers.front().attention.head_dim, spec.max_positions);
  const bool bias = config.boolean("attention_bias", false);
  const double scale = std::pow(config.number("query_pre_attn_scalar", 256.0, 0.0), -0.5);
  for (std::size_t i = 0; i < slides.size(); ++i) {
    AttentionSpec& attention = spec.layers[i].attention;
    SPECMOE_CHECK(!slides[i] || window > 0, config.where("sliding_window"), " is null, but layers slide");
    attention.window = slides[i] ? window : 0;
    attention.rope = slides[i] ? ropes.sliding : ropes.full;
    attention.qkv_bias = bias;
    attention.output_bias = bias;
    attention.scale = static_cast<float>(scale);
    attention.qk_norm = QkNorm::kPerHead;
    spec.layers[i].ffn.activation.kind = kernels::Activation::Kind::kGeluTanh;
  }
}

/// Gemma 3 (arXiv:2503.19786), text only: norms around every part, two kinds of layers with a rope each.
ModelSpec parse_gemma3(const ConfigReader& config) {
  SPECMOE_CHECK(!config.has("use_bidirectional_attention") || !config.boolean("use_bidirectional_attention", false),
                config.where("use_bidirectional_attention"), " is not supported");
  ModelSpec spec = parse_llama_like(config, gemma3_defaults());
  spec.norm = NormKind::kRmsPlusOne;
  spec.block_order = BlockOrder::kSandwich;
  spec.embedding_scale = static_cast<float>(std::sqrt(spec.hidden_size));
  spec.logit_softcap = config.has("final_logit_softcapping")
                           ? static_cast<float>(config.number("final_logit_softcapping", 0.0, 0.0))
                           : 0.0F;
  const std::string layer = "layers.{layer}.";
  spec.names.attention_out_norm = {layer + "post_attention_layernorm.weight"};
  spec.names.ffn_norm = {layer + "pre_feedforward_layernorm.weight"};
  spec.names.ffn_out_norm = {layer + "post_feedforward_layernorm.weight"};
  spec.names.query_norm = {layer + "self_attn.q_norm.weight"};
  spec.names.key_norm = {layer + "self_attn.k_norm.weight"};
  set_gemma3_layers(config, spec);
  return spec;
}

SPECMOE_MODEL_FAMILY("gemma3_text", parse_gemma3);

}  // namespace
}  // namespace specmoe::nn
