#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults gpt_oss_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 201088;
  defaults.hidden_size = 2880;
  defaults.intermediate_size = 2880;
  defaults.layers = 36;
  defaults.heads = 64;
  defaults.kv_heads = 8;
  defaults.head_dim = 64;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 150000.0;
  defaults.stop_tokens = {};
  defaults.mxfp4 = true;
  return defaults;
}

TensorNames with_gpt_oss_names(TensorNames names) {
  const std::string layer = "layers.{layer}.";
  names.sinks = {layer + "self_attn.sinks"};
  names.router = {layer + "mlp.router.weight"};
  names.router_bias = {layer + "mlp.router.bias"};
  names.fused_gate_up = {layer + "mlp.experts.gate_up_proj"};
  names.fused_gate_up_bias = {layer + "mlp.experts.gate_up_proj_bias"};
  names.fused_down = {layer + "mlp.experts.down_proj"};
  names.fused_down_bias = {layer + "mlp.experts.down_proj_bias"};
  names.fused_layout = FusedLayout::kTransposedInterleaved;
  return names;
}

/// gpt-oss (arXiv:2508.10925): attention sinks, a window in every second layer, biases everywhere, a clamped
/// activation.
ModelSpec parse_gpt_oss(const ConfigReader& config) {
  SPECMOE_CHECK(rope_object(config), config.where("rope_scaling"), " is missing, and model_type gpt_oss needs it");
  ModelSpec spec = parse_llama_like(config, gpt_oss_defaults());
  spec.names = with_gpt_oss_names(std::move(spec.names));
  RouterSpec router = parse_router(config, {"num_local_experts", "num_experts"}, 128, 4);
  router.score = RouterSpec::Score::kSoftmaxOfChosen;
  router.logit_bias = true;
  kernels::Activation activation;
  activation.kind = kernels::Activation::Kind::kClamped;
  SPECMOE_CHECK(config.number("swiglu_limit", activation.limit) == activation.limit, config.where("swiglu_limit"),
                " other than ", activation.limit, " is not supported");
  const int window = parse_window(config, 128);
  const auto slides = layers_of_type(config, static_cast<int>(spec.layers.size()), "sliding_attention",
                                     [](int layer) { return layer % 2 == 0; });
  const bool bias = config.boolean("attention_bias", true);
  for (std::size_t i = 0; i < slides.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    SPECMOE_CHECK(!slides[i] || window > 0, config.where("sliding_window"), " is null, but layers slide");
    layer.attention.window = slides[i] ? window : 0;
    layer.attention.qkv_bias = bias;
    layer.attention.output_bias = bias;
    layer.attention.sinks = true;
    layer.ffn.router = router;
    layer.ffn.bias = true;
    layer.ffn.activation = activation;
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("gpt_oss", parse_gpt_oss);

}  // namespace
}  // namespace specmoe::nn
