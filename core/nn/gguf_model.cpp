#include "core/nn/gguf_model.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/nn/config_reader.h"
#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

struct KeyName {
  const char* gguf;  // without the architecture's prefix
  const char* config;
};

/// What GGUF calls an architecture, and what it is in Hugging Face words.
struct Architecture {
  const char* name;
  const char* dense_type;    // model_type
  const char* mixture_type;  // model_type when there are experts
  bool permuted;             // rows of query and key are reordered for rotations of neighbouring elements
  std::vector<KeyName> keys;
};

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> table = {
      {"llama",
       "llama",
       "mixtral",
       true,
       {{"expert_count", "num_local_experts"}, {"rope.dimension_count", "head_dim"}}},
  };
  return table;
}

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

json to_json(const GgufValue& value) {
  return std::visit([](const auto& held) { return json(held); }, value);
}

const Architecture& architecture_of(const GgufFile& file) {
  const std::string_view* name = file.text("general.architecture");
  SPECMOE_CHECK(name != nullptr, file.path(), ": metadata has no general.architecture; not a model?");
  std::string known;
  for (const Architecture& architecture : architectures()) {
    if (*name == architecture.name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  fail(file.path(), ": architecture '", std::string(name->substr(0, 40)), "' is not supported; known: ", known);
}

/// Reads the keys of one architecture: llama.block_count, ...
class Metadata {
 public:
  explicit Metadata(const GgufFile& file) : file_(file), architecture_(architecture_of(file)) {}

  const GgufFile& file() const { return file_; }
  const Architecture& architecture() const { return architecture_; }
  std::string key(const char* name) const { return std::string(architecture_.name) + "." + name; }
  /// Null when absent.
  const GgufValue* find(const char* name) const {
    const auto found = file_.metadata().find(key(name));
    return found == file_.metadata().end() ? nullptr : &found->second;
  }
  std::int64_t integer(const char* name, std::int64_t absent) const {
    const std::int64_t* value = file_.integer(key(name));
    return value == nullptr ? absent : *value;
  }
  void copy(const std::vector<KeyName>& names, json& config) const {
    for (const KeyName& name : names) {
      if (const GgufValue* value = find(name.gguf)) config[name.config] = to_json(*value);
    }
  }

 private:
  const GgufFile& file_;
  const Architecture& architecture_;
};

/// A short float tensor that is configuration rather than weight.
json tensor_values(const GgufTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.shape.back()));
  expand_row(*tensor.type, tensor.data, tensor.shape.back(), values.data());
  return values;
}

/// llama3 scaling comes as a tensor of divisors of the frequencies, everything else as keys.
void add_rope_scaling(const Metadata& metadata, json& config) {
  const GgufTensor* divisors = metadata.file().tensor("rope_freqs.weight");
  const std::string_view* type = metadata.file().text(metadata.key("rope.scaling.type"));
  json scaling;
  if (divisors != nullptr) {
    const json factors = tensor_values(*divisors);
    scaling = {
        {"rope_type", "longrope"}, {"short_factor", factors}, {"long_factor", factors}, {"attention_factor", 1.0}};
    scaling["original_max_position_embeddings"] = config["max_position_embeddings"];
  } else if (type != nullptr && *type != "none") {
    scaling["rope_type"] = std::string(*type);
    metadata.copy({{"rope.scaling.factor", "factor"},
                   {"rope.scaling.original_context_length", "original_max_position_embeddings"},
                   {"rope.scaling.attn_factor", "attention_factor"}},
                  scaling);
  } else {
    return;
  }
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

/// The metadata in the words of config.json. A key that GGUF requires must be there: the family's default would be a
/// guess.
json config_of(const GgufFile& file) {
  const Metadata metadata(file);
  const std::int64_t* parts = file.integer("split.count");
  SPECMOE_CHECK(parts == nullptr || *parts <= 1, file.path(), ": is one of ", *parts,
                " parts of a split model; merge them into one file first");
  for (const KeyName& name : kRequired) {
    SPECMOE_CHECK(metadata.find(name.gguf) != nullptr, file.path(), ": metadata has no ", metadata.key(name.gguf));
  }
  const GgufTensor* embedding = file.tensor("token_embd.weight");
  SPECMOE_CHECK(embedding != nullptr, file.path(), ": has no tensor token_embd.weight; not a language model?");
  const bool mixture = metadata.integer("expert_count", 0) > 0;
  json config = {{"rope_theta", 10000.0}};
  metadata.copy(metadata.architecture().keys, config);
  metadata.copy(kRequired, config);
  metadata.copy(kOptional, config);
  config["model_type"] = mixture ? metadata.architecture().mixture_type : metadata.architecture().dense_type;
  config["vocab_size"] = embedding->shape.front();
  config["tie_word_embeddings"] = file.tensor("output.weight") == nullptr;
  config["attention_bias"] = file.tensor("blk.0.attn_q.bias") != nullptr;
  config["eos_token_id"] = stop_tokens(file);
  if (!config.contains("num_key_value_heads")) config["num_key_value_heads"] = config["num_attention_heads"];
  add_rope_scaling(metadata, config);
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
  names.ffn_norm = {layer + "ffn_norm.weight"};
  names.gate = {layer + "ffn_gate"};
  names.up = {layer + "ffn_up"};
  names.down = {layer + "ffn_down"};
  names.router = {layer + "ffn_gate_inp.weight"};
  // The second spelling is of files from before experts were stacked.
  names.expert_gate = {layer + "ffn_gate_exps.{expert}.weight", layer + "ffn_gate.{expert}.weight"};
  names.expert_up = {layer + "ffn_up_exps.{expert}.weight", layer + "ffn_up.{expert}.weight"};
  names.expert_down = {layer + "ffn_down_exps.{expert}.weight", layer + "ffn_down.{expert}.weight"};
  return names;
}

using RowReader = std::function<void(std::int64_t row, float* out)>;

Tensor plain(const GgufTensor& from) {
  Tensor tensor;
  tensor.name = from.name;
  tensor.dtype = from.type->name;
  tensor.shape = from.shape;
  tensor.end = from.bytes;
  tensor.data = from.data;
  if (from.type->block == 1) return tensor;
  const std::int64_t cols = from.shape.back();
  tensor.read_row = [type = from.type, data = from.data, cols](std::int64_t row, float* out) {
    expand_row(*type, data + row * (cols / type->block * type->block_bytes), cols, out);
  };
  return tensor;
}

/// Element i of a head in a Hugging Face checkpoint is element 2 (i mod d/2) + i / (d/2) of that head in the file.
std::int64_t row_in_file(std::int64_t row, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  const std::int64_t element = row % head_dim;
  return row - element + 2 * (element % half) + element / half;
}

Tensor in_rotary_order(const GgufTensor& from, std::int64_t heads, const std::string& what) {
  Tensor tensor = plain(from);
  const bool vector = from.shape.size() == 1;  // a bias
  const std::int64_t rows = vector ? from.shape.back() : from.shape.front();
  SPECMOE_CHECK(heads > 0 && rows % (2 * heads) == 0, what, ": ", describe(tensor), " ", from.name,
                " cannot be cut into ", heads, " heads of even size");
  const std::int64_t head_dim = rows / heads;
  const std::int64_t cols = from.shape.back();
  const std::int64_t row_bytes = cols / from.type->block * from.type->block_bytes;
  if (vector) {
    tensor.read_row = [type = from.type, data = from.data, cols, head_dim](std::int64_t, float* out) {
      std::vector<float> stored(static_cast<std::size_t>(cols));
      expand_row(*type, data, cols, stored.data());
      for (std::int64_t i = 0; i < cols; ++i) out[i] = stored[static_cast<std::size_t>(row_in_file(i, head_dim))];
    };
  } else {
    tensor.read_row = [type = from.type, data = from.data, cols, head_dim, row_bytes](std::int64_t row, float* out) {
      expand_row(*type, data + row_in_file(row, head_dim) * row_bytes, cols, out);
    };
  }
  return tensor;
}

/// [experts, rows, cols] as one tensor per expert.
void add_experts(const GgufTensor& stacked, std::vector<Tensor>& tensors) {
  const std::size_t dot = stacked.name.rfind('.');
  const std::size_t bytes = stacked.bytes / static_cast<std::size_t>(stacked.shape.front());
  for (std::int64_t e = 0; e < stacked.shape.front(); ++e) {
    GgufTensor expert = stacked;
    expert.name = stacked.name.substr(0, dot + 1) + std::to_string(e) + stacked.name.substr(dot);
    expert.shape.erase(expert.shape.begin());
    expert.data += static_cast<std::size_t>(e) * bytes;
    expert.bytes = bytes;
    tensors.push_back(plain(expert));
  }
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

ModelSpec gguf_spec(const GgufFile& file) {
  const std::string document = config_of(file).dump(-1, ' ', false, json::error_handler_t::replace);
  ModelSpec spec = parse_config(ConfigReader::parse(document, file.path() + " (metadata as config.json)"));
  spec.name = fs::path(file.path()).stem().string();
  spec.names = gguf_names();
  return spec;
}

std::vector<Tensor> gguf_tensors(const GgufFile& file) {
  const Metadata metadata(file);
  const std::int64_t heads = metadata.integer("attention.head_count", 0);
  const std::int64_t kv_heads = metadata.integer("attention.head_count_kv", heads);
  std::vector<Tensor> tensors;
  for (const GgufTensor& tensor : file.tensors()) {
    const std::string& name = tensor.name;
    const bool query = name.find(".attn_q.") != std::string::npos;
    const bool key = name.find(".attn_k.") != std::string::npos;
    if (name == "rope_freqs.weight") continue;  // read as configuration
    if (name.find("_exps.") != std::string::npos && tensor.shape.size() == 3) {
      add_experts(tensor, tensors);
    } else if (metadata.architecture().permuted && (query || key)) {
      tensors.push_back(in_rotary_order(tensor, query ? heads : kv_heads, file.path()));
    } else {
      tensors.push_back(plain(tensor));
    }
  }
  return tensors;
}

std::string gguf_storage(const GgufFile& file) {
  std::map<std::string, int> counts;
  for (const GgufTensor& tensor : file.tensors()) ++counts[tensor.type->name];
  std::vector<std::pair<int, std::string>> order;
  for (const auto& [name, count] : counts) order.emplace_back(-count, name);
  std::sort(order.begin(), order.end());
  std::string text;
  for (const auto& [count, name] : order) text += concat(text.empty() ? "" : ", ", name, " x ", -count);
  return text;
}

}  // namespace specmoe::nn
