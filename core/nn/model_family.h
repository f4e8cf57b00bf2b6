#pragma once

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

/// Throws Error for an unknown model_type (the text lists the known ones) and for values that are not supported.
ModelSpec parse_config(const ConfigReader& config);

/// The spec of a Hugging Face folder (config.json, and the stop tokens of generation_config.json where it has them) or
/// of a GGUF file.
ModelSpec read_spec(const std::string& path);

// What families share. Limits are far above any real model: they keep a hostile file from asking for absurd memory.

/// Defaults of a family for keys that config.json may leave out.
struct CommonDefaults {
  int vocab_size = 32000;
  int hidden_size = 4096;
  int intermediate_size = 11008;
  int layers = 32;
  int heads = 32;
  std::optional<int> kv_heads;  // nothing: as many as heads
  int max_positions = 2048;
  double norm_eps = 1e-6;
  double rope_theta = 10000.0;
};

/// Everything that Llama-like families agree on: sizes, GQA, rotary positions, names of the attention tensors. Layers
/// come out as `layers` copies of one dense layer.
ModelSpec parse_llama_like(const ConfigReader& config, const CommonDefaults& defaults);

/// Rotary positions in the transformers 4 spelling (rope_theta, rope_scaling) or 5 (rope_parameters).
RopeSpec parse_rope(const ConfigReader& config, int head_dim, int max_positions, double default_theta);

}  // namespace specmoe::nn
