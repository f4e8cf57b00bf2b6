#include "core/nn/gguf_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/nn/config_reader.h"
#include "core/nn/gguf_metadata.h"
#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const std::vector<KeyName> kRequired = {
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
};

const std::vector<KeyName> kOptional = {
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.sliding_window", "sliding_window"},
    {"feed_forward_length", "intermediate_size"},
    {"rope.freq_base", "rope_theta"},
    {"expert_used_count", "num_experts_per_tok"},
};

/// A short float tensor that is configuration rather than weight.
json tensor_values(const GgufTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.shape.back()));
  expand_row(*tensor.type, tensor.data, tensor.shape.back(), values.data());
  return values;
}

/// LongRoPE's divisors of the frequencies are tensors. One list of them is llama3 scaling, worked out.
std::optional<json> scaling_by_tensors(const GgufMetadata& metadata, const json& config) {
  const GgufTensor* all = metadata.file().tensor("rope_freqs.weight");
  const GgufTensor* for_short = all != nullptr ? all : metadata.file().tensor("rope_factors_short.weight");
  const GgufTensor* for_long = all != nullptr ? all : metadata.file().tensor("rope_factors_long.weight");
  SPECMOE_CHECK((for_short == nullptr) == (for_long == nullptr), metadata.file().path(),
                ": has one of rope_factors_short.weight and rope_factors_long.weight, expected both or none");
  if (for_short == nullptr) return std::nullopt;
  json scaling = {{"rope_type", "longrope"},
                  {"short_factor", tensor_values(*for_short)},
                  {"long_factor", tensor_values(*for_long)},
                  {"attention_factor", 1.0},
                  {"original_max_position_embeddings", config["max_position_embeddings"]}};
  if (all != nullptr) return scaling;
  metadata.copy({{"rope.scaling.attn_factor", "attention_factor"},
                 {"rope.scaling.original_context_length", "original_max_position_embeddings"}},
                scaling);
  return scaling;
}

void add_rope_scaling(const GgufMetadata& metadata, json& config) {
  if (const auto scaling = scaling_by_tensors(metadata, config)) {
    config["rope_scaling"] = *scaling;
    return;
  }
  const std::string_view* type = metadata.file().text(metadata.key("rope.scaling.type"));
  if (type == nullptr || *type == "none") return;
  json scaling = {{"rope_type", std::string(*type)}};
  metadata.copy({{"rope.scaling.factor", "factor"},
                 {"rope.scaling.original_context_length", "original_max_position_embeddings"},
                 {"rope.scaling.yarn_beta_fast", "beta_fast"},
                 {"rope.scaling.yarn_beta_slow", "beta_slow"},
                 {"rope.scaling.yarn_attn_factor", "attention_factor"}},
                scaling);
  const GgufValue* sharpness = metadata.find("rope.scaling.attn_factor");
  SPECMOE_CHECK(sharpness == nullptr || *sharpness == GgufValue(1.0), metadata.file().path(), ": ",
                metadata.key("rope.scaling.attn_factor"), " other than 1 is not supported");
  config["rope_scaling"] = scaling;
}

json stop_tokens(const GgufFile& file) {
  json tokens = json::array();
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const std::int64_t* token = file.integer(key);
    if (token != nullptr && std::find(tokens.begin(), tokens.end(), *token) == tokens.end()) tokens.push_back(*token);
  }
  return tokens;
}

/// Several models of Hugging Face are one architecture of GGUF.
std::string model_type(const GgufMetadata& metadata) {
  const std::string type = metadata.architecture().model_type;
  if (type != "llama") return type;
  if (metadata.integer("expert_count", 0) > 0) return "mixtral";
  return metadata.find("attention.sliding_window") != nullptr ? "mistral" : "llama";
}

/// Layers that predict several tokens at once come last; they are left out.
std::int64_t prediction_layers(const GgufMetadata& metadata) {
  const std::int64_t count = metadata.integer("nextn_predict_layers", 0);
  SPECMOE_CHECK(0 <= count && count < metadata.integer("block_count", 0), metadata.file().path(), ": ",
                metadata.key("nextn_predict_layers"), " = ", count, " must be at least 0 and below block_count");
  return count;
}

/// Where no key says it, whatever the family's default is. Null, which the family refuses, when nothing fits.
json plain_head_dim(const GgufMetadata& metadata) {
  const std::int64_t width = metadata.integer("embedding_length", 0);
  const std::int64_t heads = metadata.integer("attention.head_count", 0);
  return heads > 0 && width % heads == 0 ? json(width / heads) : json();
}

/// A key that GGUF requires must be there: the family's default would be a guess.
json config_of(const GgufFile& file) {
  const GgufMetadata metadata(file);
  const std::int64_t* parts = file.integer("split.count");
  SPECMOE_CHECK(parts == nullptr || *parts <= 1, file.path(), ": is one of ", *parts,
                " parts of a split model; merge them into one file first");
  for (const KeyName& name : kRequired) {
    SPECMOE_CHECK(metadata.find(name.gguf) != nullptr, file.path(), ": metadata has no ", metadata.key(name.gguf));
  }
  const GgufTensor* embedding = file.tensor("token_embd.weight");
  SPECMOE_CHECK(embedding != nullptr, file.path(), ": has no tensor token_embd.weight; not a language model?");
  json config = metadata.architecture().fixed;
  config["model_type"] = model_type(metadata);
  config["rope_theta"] = 10000.0;
  metadata.copy(metadata.architecture().keys, config);
  metadata.copy(kRequired, config);
  metadata.copy(kOptional, config);
  if (!config.contains("head_dim")) config["head_dim"] = plain_head_dim(metadata);
  config["vocab_size"] = embedding->shape.front();
  config["tie_word_embeddings"] = file.tensor("output.weight") == nullptr;
  config["attention_bias"] = file.tensor("blk.0.attn_q.bias") != nullptr;
  config["eos_token_id"] = stop_tokens(file);
  if (!config.contains("num_key_value_heads")) config["num_key_value_heads"] = config["num_attention_heads"];
  // Gemma 3 27B alone scales its scores by another width; like llama.cpp, we know it by its layers.
  if (config["model_type"] == "gemma3_text" && metadata.integer("block_count", 0) == 62) {
    config["query_pre_attn_scalar"] = metadata.integer("embedding_length", 0) /
                                      std::max<std::int64_t>(1, metadata.integer("attention.head_count", 1));
  }
  if (const std::int64_t left_out = prediction_layers(metadata); left_out > 0) {
    config["num_hidden_layers"] = metadata.need("block_count") - left_out;
  }
  add_rope_scaling(metadata, config);
  if (metadata.architecture().complete != nullptr) metadata.architecture().complete(metadata, config);
  return config;
}

TensorNames gguf_names() {
  TensorNames names;
  const std::string layer = "blk.{layer}.";
  names.embedding = {"token_embd.weight"};
  names.final_norm = {"output_norm.weight"};
  names.head = {"output.weight"};
  names.attention_norm = {layer + "attn_norm.weight"};
  names.query = {layer + "attn_q"};
  names.key = {layer + "attn_k"};
  names.value = {layer + "attn_v"};
  names.output = {layer + "attn_output"};
  names.query_norm = {layer + "attn_q_norm.weight"};
  names.key_norm = {layer + "attn_k_norm.weight"};
  names.attention_out_norm = {layer + "post_attention_norm.weight"};
  names.ffn_norm = {layer + "ffn_norm.weight"};
  names.ffn_out_norm = {layer + "post_ffw_norm.weight"};
  names.gate = {layer + "ffn_gate"};
  names.up = {layer + "ffn_up"};
  names.down = {layer + "ffn_down"};
  names.router = {layer + "ffn_gate_inp.weight"};
  // The second spelling is of files from before experts were stacked.
  names.expert_gate = {layer + "ffn_gate_exps.{expert}", layer + "ffn_gate.{expert}"};
  names.expert_up = {layer + "ffn_up_exps.{expert}", layer + "ffn_up.{expert}"};
  names.expert_down = {layer + "ffn_down_exps.{expert}", layer + "ffn_down.{expert}"};
  names.shared_gate = {layer + "ffn_gate_shexp"};
  names.shared_up = {layer + "ffn_up_shexp"};
  names.shared_down = {layer + "ffn_down_shexp"};
  names.shared_scale = {layer + "ffn_gate_inp_shexp.weight"};
  names.router_bias = {layer + "ffn_gate_inp.bias"};
  names.choice_bias = {layer + "exp_probs_b.bias"};
  names.sinks = {layer + "attn_sinks.weight"};
  names.attention_norm_bias = {layer + "attn_norm.bias"};
  names.ffn_norm_bias = {layer + "ffn_norm.bias"};
  names.final_norm_bias = {"output_norm.bias"};
  names.head_bias = {"output.bias"};
  names.query_down = {layer + "attn_q_a"};
  names.query_down_norm = {layer + "attn_q_a_norm.weight"};
  names.query_up = {layer + "attn_q_b"};
  names.kv_down = {layer + "attn_kv_a_mqa"};
  names.kv_down_norm = {layer + "attn_kv_a_norm.weight"};
  names.kv_up = {layer + "attn_kv_b"};
  return names;
}

}  // namespace

std::optional<std::string> find_gguf(const fs::path& path) {
  std::error_code ignored;
  if (path.extension() == ".gguf" && !fs::is_directory(path, ignored)) return path.string();
  if (!fs::is_directory(path, ignored) || fs::exists(path / "config.json", ignored)) return std::nullopt;
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    if (entry.path().extension() == ".gguf") found.push_back(entry.path().string());
  }
  SPECMOE_CHECK(found.size() <= 1, "model folder ", path.string(), " holds ", found.size(),
                " GGUF files; name one of them");
  if (found.empty()) return std::nullopt;
  return found.front();
}

json gguf_config(const GgufFile& file) { return config_of(file); }

ModelSpec gguf_spec(const GgufFile& file) {
  const std::string document = config_of(file).dump(-1, ' ', false, json::error_handler_t::replace);
  ModelSpec spec = parse_config(ConfigReader::parse(document, file.path() + " (metadata as config.json)"));
  spec.name = fs::path(file.path()).stem().string();
  spec.names = gguf_names();
  // gpt-oss files call the norm before the feed-forward part what Gemma calls the one after attention.
  if (spec.block_order == BlockOrder::kPreNorm) spec.names.ffn_norm.push_back(spec.names.attention_out_norm.front());
  const GgufMetadata metadata(file);
  for (std::int64_t layer = 0; layer < prediction_layers(metadata); ++layer) {
    spec.names.ignored.push_back(concat("blk.", spec.layers.size() + static_cast<std::size_t>(layer), "."));
  }
  if (spec.norm == NormKind::kRmsPlusOne) spec.norm = NormKind::kRms;  // the file's weights have the one in them
  return spec;
}

}  // namespace specmoe::nn
