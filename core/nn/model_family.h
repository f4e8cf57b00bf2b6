#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/config_reader.h"
#include "core/nn/model_spec.h"

namespace specmoe::nn {

/// Turns a config.json into a ModelSpec. One per model_type, each in its own file that ends in its registration:
///     SPECMOE_MODEL_FAMILY("mixtral", parse_mixtral);
using FamilyParser = ModelSpec (*)(const ConfigReader& config);

struct FamilyRegistration {
  FamilyRegistration(const char* model_type, FamilyParser parser);
};

#define SPECMOE_MODEL_FAMILY(model_type, parser) \
  static const ::specmoe::nn::FamilyRegistration parser##_registration(model_type, parser)

std::vector<std::string> model_families();

/// quant_method of the int8 checkpoints that convert_checkpoint() writes.
constexpr const char* kOwnQuantization = "specmoe";

/// Throws Error for an unknown model_type (the text lists the known ones) and for values that are not supported.
ModelSpec parse_config(const ConfigReader& config);

/// The spec of a Hugging Face folder (config.json, and the stop tokens of generation_config.json where it has them) or
/// of a GGUF file.
ModelSpec read_spec(const std::string& path);

// What families share. Limits are far above any real model: they keep a hostile file from asking for absurd memory.

constexpr std::int64_t kMaxSize = 1 << 24;
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxHeads = 1 << 16;
constexpr std::int64_t kMaxPositions = 1 << 30;
constexpr std::int64_t kMaxExperts = 4096;

/// Defaults of a family for keys that config.json may leave out.
struct CommonDefaults {
  int vocab_size = 32000;
  int hidden_size = 4096;
  int intermediate_size = 11008;
  int layers = 32;
  int heads = 32;
  std::optional<int> kv_heads;  // nothing: as many as heads
  std::optional<int> head_dim;  // nothing: hidden_size / heads, which is also what a null stands for
  int max_positions = 2048;
  double norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::optional<double> partial_rotary;  // partial_rotary_factor; nothing: whole heads turn, and none may be given
  bool tied_embeddings = false;
  std::vector<TokenId> stop_tokens = {2};
  const char* activation_key = "hidden_act";
  const char* activation = "silu";  // the one that is known; also the default
  bool mxfp4 = false;               // experts may be 4-bit floats
};

/// Everything that Llama-like families agree on: sizes, GQA, rotary positions, names of the attention tensors. Layers
/// come out as `layers` copies of one dense layer.
ModelSpec parse_llama_like(const ConfigReader& config, const CommonDefaults& defaults);

/// The same without attention and feed-forward parts: layers come out empty.
ModelSpec parse_frame(const ConfigReader& config, const CommonDefaults& defaults);

/// A size that must be there or take its default, never null.
int parse_size(const ConfigReader& config, const std::string& key, int absent, std::int64_t most = kMaxSize);

/// `sliding_window`; none, which is what null stands for, is 0.
int parse_window(const ConfigReader& config, int absent);

/// Which layers are of one kind ("sliding_attention"): `layer_types` where it is there, else the family's own rule.
/// Every entry must be `kind` or "full_attention".
std::vector<bool> layers_of_type(const ConfigReader& config, int layers, const std::string& kind,
                                 const std::function<bool(int layer)>& rule);

/// Counts of experts; how they are scored is the family's.
///
/// experts_keys  the first that is there
RouterSpec parse_router(const ConfigReader& config, const std::vector<std::string>& experts_keys, int experts,
                        int experts_per_token);

/// Which layers are mixtures in the Qwen families: every decoder_sparse_step-th but those of mlp_only_layers.
std::vector<bool> sparse_layers(const ConfigReader& config, int layers);

/// Tensors of experts under `block`, one by one (gate, up and down are their names) or fused.
void add_expert_names(TensorNames& names, const std::string& block, const std::string& gate, const std::string& up,
                      const std::string& down);

/// The language part of a model that sees images too: `text_config`. The other parts' tensors are left out.
///
/// model_type  of text_config
ModelSpec parse_text_part(const ConfigReader& config, const char* model_type, FamilyParser parser);

/// Rotary positions in the transformers 4 spelling (rope_theta, rope_scaling) or 5 (rope_parameters).
///
/// dim      elements of a head that may turn
/// partial  which part of them does when config.json has no partial_rotary_factor; nothing: all of them, always
RopeSpec parse_rope(const ConfigReader& config, int dim, int max_positions, double default_theta,
                    std::optional<double> partial = std::nullopt);

/// rope_scaling or rope_parameters, whichever says something.
std::optional<ConfigReader> rope_object(const ConfigReader& config);

/// The same from the object that holds them; theta is for one that says none.
RopeSpec parse_rope_object(const ConfigReader& config, const std::optional<ConfigReader>& rope, int dim,
                           int max_positions, double theta, std::optional<double> partial = std::nullopt);

/// YaRN's mscale: how much longer contexts sharpen the scores (Peng et al. 2023, arXiv:2309.00071).
double yarn_sharpness(double stretch, double weight);

}  // namespace specmoe::nn
