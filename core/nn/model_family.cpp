#include "core/nn/model_family.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "core/nn/draft_head.h"
#include "core/nn/gguf_model.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace fs = std::filesystem;

namespace {

std::map<std::string, FamilyParser>& families() {
  static std::map<std::string, FamilyParser> table;
  return table;
}

AttentionSpec parse_attention(const ConfigReader& config, const CommonDefaults& defaults, int hidden,
                              int max_positions) {
  AttentionSpec attention;
  attention.heads = static_cast<int>(config.integer("num_attention_heads", defaults.heads, 1, kMaxHeads));
  const int absent = defaults.kv_heads.value_or(attention.heads);
  const bool null = config.contains("num_key_value_heads") && !config.has("num_key_value_heads");
  attention.kv_heads =
      null ? attention.heads : static_cast<int>(config.integer("num_key_value_heads", absent, 1, kMaxHeads));
  SPECMOE_CHECK(attention.heads % attention.kv_heads == 0, config.where("num_attention_heads"), " = ", attention.heads,
                " must be a multiple of num_key_value_heads = ", attention.kv_heads);
  if (config.has("head_dim") || (defaults.head_dim && !config.contains("head_dim"))) {
    attention.head_dim = parse_size(config, "head_dim", defaults.head_dim.value_or(0), kMaxHeads);
  } else {
    SPECMOE_CHECK(hidden % attention.heads == 0, config.where("hidden_size"), " = ", hidden,
                  " must be a multiple of num_attention_heads = ", attention.heads, " when there is no head_dim");
    attention.head_dim = hidden / attention.heads;
  }
  SPECMOE_CHECK(attention.head_dim % 2 == 0, config.where("head_dim"), " must be even, got ", attention.head_dim);
  attention.scale = static_cast<float>(std::pow(attention.head_dim, -0.5));
  attention.rope = parse_rope(config, attention.head_dim, max_positions, defaults.rope_theta, defaults.partial_rotary);
  return attention;
}

TensorNames llama_names() {
  TensorNames names;
  const std::string layer = "layers.{layer}.";
  names.embedding = {"embed_tokens.weight"};
  names.final_norm = {"norm.weight"};
  names.head = {"lm_head.weight"};
  names.attention_norm = {layer + "input_layernorm.weight"};
  names.query = {layer + "self_attn.q_proj"};
  names.key = {layer + "self_attn.k_proj"};
  names.value = {layer + "self_attn.v_proj"};
  names.output = {layer + "self_attn.o_proj"};
  names.ffn_norm = {layer + "post_attention_layernorm.weight"};
  names.gate = {layer + "mlp.gate_proj"};
  names.up = {layer + "mlp.up_proj"};
  names.down = {layer + "mlp.down_proj"};
  return names;
}

void check_activation(const ConfigReader& config, const CommonDefaults& defaults) {
  const std::string key = defaults.activation_key;
  const std::string activation = config.text(key, defaults.activation);
  SPECMOE_CHECK(activation == defaults.activation, config.where(key), " '", activation,
                "' is not supported; known: ", defaults.activation);
}

void parse_quantization(const ConfigReader& config, const CommonDefaults& defaults, ModelSpec& spec) {
  const auto quantization = config.object("quantization_config");
  if (!quantization) return;
  const std::string method = quantization->text("quant_method", "none");
  if (method == "mxfp4" && defaults.mxfp4) {
    spec.quantization = Quantization::kMxfp4;
    return;
  }
  if (method == kOwnQuantization) {
    const std::string weights = quantization->text("weights", "none");
    SPECMOE_CHECK(weights == "int8", quantization->where("weights"), " '", weights, "' is not supported; known: int8");
    spec.quantization = Quantization::kInt8;
    return;
  }
  SPECMOE_CHECK(method == "fp8", quantization->where("quant_method"), " '", method,
                "' is not supported for this model_type; known: fp8", defaults.mxfp4 ? ", mxfp4" : "",
                "; convert the checkpoint to float32, float16 or bfloat16");
  const auto block = quantization->integers("weight_block_size", 1, kMaxSize);
  SPECMOE_CHECK(block && block->size() == 2, quantization->where("weight_block_size"),
                " must be two numbers: fp8 is supported with one scale per block");
  spec.quantization = Quantization::kFp8Block;
  spec.fp8_block_rows = static_cast<int>((*block)[0]);
  spec.fp8_block_cols = static_cast<int>((*block)[1]);
}

/// Counts in later arithmetic are 64-bit integers; a model beyond this is not one.
void check_plausible(const ConfigReader& config, const ModelSpec& spec) {
  constexpr double kMostParameters = 1e15;
  double parameters = 2.0 * spec.vocab_size * spec.hidden_size;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    const double heads = 2.0 * attention.heads + 2.0 * attention.kv_heads;
    const double experts = layer.ffn.router ? layer.ffn.router->experts : 1;
    const double shared = layer.ffn.shared ? layer.ffn.shared->width : 0;
    parameters +=
        (heads * attention.head_dim + experts * (3.0 * layer.ffn.width + 1.0) + 3.0 * shared) * spec.hidden_size;
    if (!attention.latent) continue;
    const double outputs = spec.hidden_size + attention.heads * (1.0 * attention.head_dim + attention.value_dim());
    parameters += (1.0 * attention.latent->query_rank + attention.latent->kv_rank) * outputs;
  }
  SPECMOE_CHECK(parameters <= kMostParameters, config.where("model_type"), " describes a model of ", parameters,
                " parameters, at most ", kMostParameters, " are supported");
}

}  // namespace

FamilyRegistration::FamilyRegistration(const char* model_type, FamilyParser parser) {
  const bool is_new = families().emplace(model_type, parser).second;
  SPECMOE_CHECK(is_new, "model_type '", model_type, "' is registered twice");
}

std::vector<std::string> model_families() {
  std::vector<std::string> names;
  for (const auto& [name, parser] : families()) names.push_back(name);
  return names;
}

ModelSpec parse_config(const ConfigReader& config) {
  SPECMOE_CHECK(config.has("model_type"), config.where("model_type"), " is missing; not a model configuration?");
  const std::string type = config.text("model_type", "");
  const auto family = families().find(type);
  if (family == families().end()) {
    std::string known;
    for (const std::string& name : model_families()) known += (known.empty() ? "" : ", ") + name;
    fail(config.where("model_type"), " '", type, "' is not supported; known: ", known);
  }
  ModelSpec spec = family->second(config);
  spec.model_type = type;
  check_plausible(config, spec);
  return spec;
}

ModelSpec read_spec(const std::string& path) {
  if (const auto gguf = find_gguf(path)) {
    ModelSpec spec = gguf_spec(GgufFile(*gguf));
    spec.path = path;
    return spec;
  }
  std::error_code ignored;
  SPECMOE_CHECK(fs::exists(path, ignored), "model folder '", path, "' does not exist");
  SPECMOE_CHECK(fs::is_directory(path, ignored), "'", path,
                "' is no model; give a Hugging Face folder or a file that ends in .gguf");
  const fs::path config = fs::path(path) / "config.json";
  SPECMOE_CHECK(fs::exists(config, ignored), "model folder ", path, " has no config.json");
  const ConfigReader reader = ConfigReader::read(config.string());
  SPECMOE_CHECK(!is_draft_head(reader), "'", path,
                "' is a draft head for another model, not a model; open it as drafter ",
                is_block_head(reader) ? "dflash" : "eagle", "(path=", path, ")");
  const bool medusa = reader.contains("medusa_num_heads");
  SPECMOE_CHECK(!medusa || reader.has("model_type"), "'", path,
                "' holds Medusa heads for another model, not a model; open it as drafter medusa(path=", path, ")");
  ModelSpec spec = parse_config(reader);
  spec.path = path;
  if (medusa) spec.names.ignored.emplace_back("medusa_head.");  // read_medusa_heads() reads them
  spec.name = fs::path(path).lexically_normal().filename().string();
  if (spec.name.empty()) spec.name = fs::path(path).lexically_normal().parent_path().filename().string();
  const fs::path generation = fs::path(path) / "generation_config.json";
  if (fs::exists(generation, ignored)) {
    const ConfigReader ends = ConfigReader::read(generation.string());
    if (ends.has("eos_token_id")) spec.stop_tokens = ends.tokens("eos_token_id");
  }
  return spec;
}

ModelSpec parse_frame(const ConfigReader& config, const CommonDefaults& defaults) {
  check_activation(config, defaults);
  ModelSpec spec;
  spec.vocab_size = parse_size(config, "vocab_size", defaults.vocab_size);
  spec.hidden_size = parse_size(config, "hidden_size", defaults.hidden_size);
  spec.max_positions = parse_size(config, "max_position_embeddings", defaults.max_positions, kMaxPositions);
  spec.norm_eps = static_cast<float>(config.number("rms_norm_eps", defaults.norm_eps, 0.0));
  spec.tied_embeddings = config.boolean("tie_word_embeddings", defaults.tied_embeddings);
  spec.stop_tokens = config.contains("eos_token_id") ? config.tokens("eos_token_id") : defaults.stop_tokens;
  spec.names = llama_names();
  spec.layers.resize(static_cast<std::size_t>(parse_size(config, "num_hidden_layers", defaults.layers, kMaxLayers)));
  for (const char* key : {"pard_token", "ptd_token_id"}) {
    if (config.has(key)) spec.mask_token = static_cast<TokenId>(config.integer(key, 0, 0, spec.vocab_size - 1));
  }
  parse_quantization(config, defaults, spec);
  return spec;
}

ModelSpec parse_llama_like(const ConfigReader& config, const CommonDefaults& defaults) {
  ModelSpec spec = parse_frame(config, defaults);
  LayerSpec layer;
  layer.attention = parse_attention(config, defaults, spec.hidden_size, spec.max_positions);
  layer.ffn.width = parse_size(config, "intermediate_size", defaults.intermediate_size);
  spec.layers.assign(spec.layers.size(), layer);
  return spec;
}

}  // namespace specmoe::nn
