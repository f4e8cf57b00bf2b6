#include <algorithm>
#include <cmath>

#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

CommonDefaults llama4_defaults() {
  CommonDefaults defaults;
  defaults.vocab_size = 202048;
  defaults.hidden_size = 5120;
  defaults.intermediate_size = 8192;
  defaults.layers = 48;
  defaults.heads = 40;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.rope_theta = 500000.0;
  return defaults;
}

TensorNames with_llama4_names(TensorNames names) {
  const std::string block = "layers.{layer}.feed_forward.";
  names.gate = {block + "gate_proj"};
  names.up = {block + "up_proj"};
  names.down = {block + "down_proj"};
  names.router = {block + "router.weight"};
  names.fused_gate_up = {block + "experts.gate_up_proj"};
  names.fused_down = {block + "experts.down_proj"};
  names.fused_layout = FusedLayout::kTransposed;
  names.shared_gate = {block + "shared_expert.gate_proj"};
  names.shared_up = {block + "shared_expert.up_proj"};
  names.shared_down = {block + "shared_expert.down_proj"};
  return names;
}

/// moe_layers where it is there, even empty; otherwise every interleave_moe_layer_step-th.
std::vector<bool> mixture_layers(const ConfigReader& config, int layers) {
  const auto listed = config.integers("moe_layers", 0, kMaxLayers);
  const int step = parse_size(config, "interleave_moe_layer_step", 1);
  std::vector<bool> mixtures;
  for (int i = 0; i < layers; ++i) {
    mixtures.push_back(listed ? std::find(listed->begin(), listed->end(), i) != listed->end() : (i + 1) % step == 0);
  }
  return mixtures;
}

/// A 1 in no_rope_layers stands for a layer that does turn its heads. An empty list is as good as none.
std::vector<bool> turning_layers(const ConfigReader& config, int layers) {
  const auto listed = config.integers("no_rope_layers", 0, 1);
  const int interval = parse_size(config, "no_rope_layer_interval", 4);
  const bool use_list = listed && !listed->empty();
  SPECMOE_CHECK(!use_list || static_cast<int>(listed->size()) >= layers, config.where("no_rope_layers"),
                " must have one entry for each of ", layers, " layers, got ", use_list ? listed->size() : 0);
  std::vector<bool> turning;
  for (int i = 0; i < layers; ++i) {
    turning.push_back(use_list ? (*listed)[static_cast<std::size_t>(i)] == 1 : (i + 1) % interval != 0);
  }
  return turning;
}

void set_llama4_attention(const ConfigReader& config, ModelSpec& spec) {
  const int count = static_cast<int>(spec.layers.size());
  const auto turning = turning_layers(config, count);
  const auto chunked = layers_of_type(config, count, "chunked_attention",
                                      [&turning](int layer) { return turning[static_cast<std::size_t>(layer)]; });
  const bool null = config.contains("attention_chunk_size") && !config.has("attention_chunk_size");
  const int chunk = null ? 0 : parse_size(config, "attention_chunk_size", 8192, kMaxPositions);
  const bool normed = config.boolean("use_qk_norm", true);
  std::optional<TemperatureSpec> temperature;
  if (config.boolean("attn_temperature_tuning", true)) {
    temperature = {config.number("floor_scale", 8192.0, 0.0), config.number("attn_scale", 0.1)};
  }
  const bool bias = config.boolean("attention_bias", false);
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    AttentionSpec& attention = spec.layers[at].attention;
    SPECMOE_CHECK(!chunked[at] || chunk > 0, config.where("attention_chunk_size"), " is null, but layers are chunked");
    attention.chunk = chunked[at] ? chunk : 0;
    attention.qkv_bias = bias;
    attention.output_bias = bias;
    attention.rope->interleaved = true;
    if (turning[at]) {
      attention.qk_norm = normed ? QkNorm::kL2AfterRope : QkNorm::kNone;
    } else {
      attention.rope.reset();
      attention.temperature = temperature;
    }
  }
}

/// Llama 4 Scout and Maverick, text only: chunked layers that turn their heads among full ones that do not; the score
/// of the chosen experts scales their input.
ModelSpec parse_llama4(const ConfigReader& config) {
  ModelSpec spec = parse_llama_like(config, llama4_defaults());
  spec.names = with_llama4_names(std::move(spec.names));
  set_llama4_attention(config, spec);
  RouterSpec router = parse_router(config, {"num_local_experts"}, 16, 1);
  router.score = RouterSpec::Score::kSigmoid;
  router.renormalise = false;
  router.scales_input = true;
  const int dense_width = parse_size(config, "intermediate_size_mlp", 16384);
  const auto mixtures = mixture_layers(config, static_cast<int>(spec.layers.size()));
  for (std::size_t i = 0; i < mixtures.size(); ++i) {
    FfnSpec& ffn = spec.layers[i].ffn;
    if (mixtures[i]) {
      ffn.router = router;
      ffn.shared = SharedExpertSpec{ffn.width, false};
    } else {
      ffn.width = dense_width;
    }
  }
  return spec;
}

SPECMOE_MODEL_FAMILY("llama4_text", parse_llama4);

}  // namespace
}  // namespace specmoe::nn
