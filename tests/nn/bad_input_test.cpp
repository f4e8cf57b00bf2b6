// Folders that must be refused, each with one line that says what is wrong.
#include <cstring>

#include "core/nn/model_family.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

using nlohmann::json;

std::string fixture_folder(const std::string& name) { return load_fixture(name).folder; }

/// A safetensors file from header text and data.
std::string safetensors(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
  return bytes + header + data;
}

class BadInput : public ::testing::Test {
 protected:
  void expect(const std::string& folder, const std::vector<std::string>& parts) {
    const std::string text = load_error(folder);
    for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
  }
  void expect_here(const std::vector<std::string>& parts) { expect(copy_.path(), parts); }
  void expect_config(const std::string& key, const json& value, const std::vector<std::string>& parts) {
    const json original = copy_.config();
    copy_.set_config(key, value);
    expect_here(parts);
    copy_.set_config(original);
  }
  /// Rewrites the weights with a changed header.
  template <class Change>
  void change_header(const Change& change) {
    const std::string bytes = read_file(copy_ / "model.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    json header = json::parse(bytes.substr(8, length));
    change(header);
    write_file(copy_ / "model.safetensors", safetensors(header.dump(), bytes.substr(8 + length)));
  }

  FolderCopy copy_{fixture_folder("mixtral_a")};
};

TEST_F(BadInput, Folder) {
  expect("/no/such/folder", {"model folder '/no/such/folder' does not exist"});
  expect(std::string(5000, 'a'), {"does not exist"});
  expect((copy_ / "config.json").string(), {"is no model; give a Hugging Face folder or a file that ends in .gguf"});
  std::filesystem::remove(copy_ / "model.safetensors");
  expect_here({"neither model.safetensors nor model.safetensors.index.json"});
  std::filesystem::remove(copy_ / "config.json");
  expect_here({"has no config.json"});
}

TEST_F(BadInput, ConfigText) {
  for (const std::string text : {"", "{", "[1]", "{\"model_type\": \"llama\", \"hidden_size\": NaN}", "\xff\xfe"}) {
    write_file(copy_ / "config.json", text);
    expect_here({"config.json"});
  }
  write_file(copy_ / "config.json", R"({"model_type": "llama", "hidden_size": 1e999})");
  expect_here({"config.json"});
  write_file(copy_ / "config.json", R"({"model_type": "llama", "hidden_size": 64, "hidden_size": 65})");
  expect_here({"'hidden_size' appears twice"});
  write_file(copy_ / "config.json", std::string(100000, '['));
  expect_here({"nested deeper"});
}

TEST_F(BadInput, ConfigValues) {
  expect_config("model_type", "gpt9", {"'gpt9' is not supported; known: ", "llama, ", "mixtral"});
  expect_config("model_type", "two\nlines", {"control characters"});
  expect_config("model_type", nullptr, {"model_type is missing"});
  expect_config("hidden_act", "gelu", {"hidden_act 'gelu'"});
  expect_config("quantization_config", {{"quant_method", "gptq"}}, {"quantization_config"});
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings", "num_local_experts",
                          "num_experts_per_tok", "sliding_window"}) {
    for (const json& value : {json(0), json(-4), json(1.5), json("64"), json(true), json(1e18), json(1ULL << 63)}) {
      expect_config(key, value, {std::string(key) + " must be an integer", value.dump()});
    }
  }
  expect_config("rms_norm_eps", 0.0, {"rms_norm_eps must be a finite number above 0"});
  expect_config("rms_norm_eps", "tiny", {"rms_norm_eps must be a number"});
  expect_config("tie_word_embeddings", "yes", {"tie_word_embeddings must be true or false"});
  expect_config("num_experts_per_tok", 9, {"num_experts_per_tok = 9 must be at most num_local_experts = 8"});
  expect_config("num_key_value_heads", 3, {"multiple of num_key_value_heads = 3"});
  expect_config("head_dim", 23, {"head_dim must be even"});
  expect_config("eos_token_id", "end", {"eos_token_id"});
  for (const json& value : {json(-1), json(1 << 20), json("mask")}) {
    expect_config("pard_token", value, {"pard_token must be an integer"});
  }
  expect_config("num_hidden_layers", 4096, {"missing layers.2.input_layernorm.weight", "more"});
}

TEST_F(BadInput, ImplausibleModelsAreRefusedBeforeAllocating) {
  json config = copy_.config();
  for (const char* key : {"hidden_size", "intermediate_size", "vocab_size"}) config[key] = 1 << 24;
  config["num_hidden_layers"] = 4096;
  config["num_local_experts"] = 4096;
  copy_.set_config(config);
  expect_here({"describes a model of", "parameters"});
}

TEST_F(BadInput, Rope) {
  expect_config(
      "rope_parameters", json({{"rope_type", "spiral"}}),
      {"rope_parameters.rope_type 'spiral' is not supported; known: default, linear, dynamic, llama3, yarn, longrope"});
  expect_config("rope_parameters", json({{"rope_type", "linear"}}), {"rope_parameters.factor is missing"});
  expect_config("rope_scaling", json({{"type", "linear"}, {"factor", 0}}), {"rope_scaling.factor"});
  expect_config("rope_scaling", json({{"type", "linear"}, {"factor", "2"}}), {"rope_scaling.factor"});
  expect_config("rope_scaling", json({{"rope_type", "llama3"}, {"factor", 8}}), {"low_freq_factor is missing"});
  expect_config("rope_scaling", 3, {"rope_scaling must be an object"});
  expect_config("rope_parameters", json({{"rope_theta", -1}}), {"rope_theta must be a finite number above 0"});
  expect_config("partial_rotary_factor", 0.5, {"partial_rotary_factor"});
}

TEST_F(BadInput, DamagedSafetensors) {
  const std::string whole = read_file(copy_ / "model.safetensors");
  const auto expect_bytes = [&](const std::string& bytes, const std::string& part) {
    write_file(copy_ / "model.safetensors", bytes);
    expect_here({"model.safetensors", part});
  };
  expect_bytes("", "too few");
  expect_bytes(whole.substr(0, 7), "too few");
  expect_bytes(whole.substr(0, 500), "truncated");
  expect_bytes(whole.substr(0, whole.size() - 1), "truncated");
  expect_bytes(whole + '\0', "trailing bytes");
  expect_bytes(std::string(8, '\xff') + whole.substr(8), "header of 18446744073709551615 bytes");
  expect_bytes(std::string("\x00\xe1\xf5\x05\x00\x00\x00\x00", 8), "truncated");
  expect_bytes(safetensors("nonsense", ""), "not valid JSON");
  expect_bytes(safetensors("[]", ""), "must be a JSON object");
  expect_bytes(safetensors(R"({"two\nlines":{}})", ""), "control characters");
  expect_bytes(safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],)"
                           R"("data_offsets":[4,8]}})",
                           "12345678"),
               "'a' appears twice");
}

TEST_F(BadInput, SafetensorsEntries) {
  struct Entry {
    std::string text;
    std::string part;
  };
  const std::vector<Entry> entries = {
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "needs 8 bytes, got 4"},
      {R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", "unknown dtype \"F31\""},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "not a count"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "not a count"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "hole"},
      {R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", "trailing"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}})", "larger than any memory"},
      {R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", "whole bytes"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", "needs dtype, shape and two data_offsets"},
      {R"({"a":[1,2]})", "needs dtype"},
      {R"({"__metadata__":{"a":1}})", "__metadata__"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "overlap"},
      {R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}})", "hole"},
  };
  for (const Entry& entry : entries) {
    write_file(copy_ / "model.safetensors", safetensors(entry.text, "1234"));
    expect_here({entry.part});
  }
}

TEST_F(BadInput, AcceptedOddities) {
  const auto parse = [](const std::string& header, std::uint64_t bytes) {
    return parse_safetensors_header(header, bytes, "test").size();
  };
  EXPECT_EQ(parse("{}", 0), 0U);
  EXPECT_EQ(parse("  {\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}} \n", 4), 1U);
  EXPECT_EQ(parse(R"({"a":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]},"__metadata__":{"format":"pt"}})", 0), 1U);
}

TEST_F(BadInput, EveryMisfitIsListedAtOnce) {
  change_header([](json& header) {
    header["model.layers.0.extra"] = header["model.norm.weight"];
    header.erase("model.norm.weight");
    header["model.layers.1.self_attn.q_proj.weight"]["shape"] = {64, 96};
    header["renamed"] = header["model.layers.1.block_sparse_moe.experts.3.w2.weight"];
    header.erase("model.layers.1.block_sparse_moe.experts.3.w2.weight");
  });
  expect_here({"5 of its tensors do not fit", "missing norm.weight [64]", "extra model.layers.0.extra BF16 [64]",
               "q_proj.weight is BF16 [64, 96], expected [96, 64]",
               "missing layers.1.block_sparse_moe.experts.3.w2.weight [64, 24]", "extra renamed BF16 [64, 24]"});
}

TEST_F(BadInput, WrongStorageType) {
  change_header([](json& header) { header["model.norm.weight"]["dtype"] = "I16"; });
  expect_here({"model.norm.weight is I16 [64], expected F32, F16 or BF16"});
}

TEST_F(BadInput, RotaryFrequenciesOfOldCheckpointsAreIgnored) {
  const std::string bytes = read_file(copy_ / "model.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  json header = json::parse(bytes.substr(8, length));
  const std::uint64_t end = bytes.size() - 8 - length;
  header["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      {"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
  write_file(copy_ / "model.safetensors", safetensors(header.dump(), bytes.substr(8 + length) + "1234"));
  EXPECT_EQ(load(copy_.path())->info().layers, 2);
}

TEST_F(BadInput, TensorUnderTwoNames) {
  change_header([](json& header) {
    header["norm.weight"] = header["model.layers.0.input_layernorm.weight"];
    header.erase("model.layers.0.input_layernorm.weight");
  });
  expect_here({"norm.weight is there twice"});
}

class BadIndex : public BadInput {
 protected:
  BadIndex() : index_(json::parse(read_file(shards_ / "model.safetensors.index.json"))) {}
  void expect_index(const json& index, const std::vector<std::string>& parts) {
    write_file(shards_ / "model.safetensors.index.json", index.dump());
    expect(shards_.path(), parts);
  }

  FolderCopy shards_{fixture_folder("mixtral_b")};
  json index_;
};

TEST_F(BadIndex, ShardNames) {
  for (const std::string name : {"../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", ""}) {
    json index = index_;
    index["weight_map"]["model.norm.weight"] = name;
    expect_index(index, {"model.norm.weight is mapped to '" + name + "'", "plain name"});
  }
  json index = index_;
  index["weight_map"]["model.norm.weight"] = "absent.safetensors";
  expect_index(index, {"cannot open", "absent.safetensors"});
}

TEST_F(BadIndex, Content) {
  expect_index(json::object(), {"no weight_map"});
  expect_index({{"weight_map", 3}}, {"weight_map must be an object"});
  json index = index_;
  index["weight_map"]["model.norm.weight"] = 5;
  expect_index(index, {"model.norm.weight must be a string"});
  index = index_;
  const std::string norm = index["weight_map"]["model.norm.weight"];
  for (const auto& [tensor, shard] : index_["weight_map"].items()) {
    if (shard != norm) index["weight_map"]["model.norm.weight"] = shard;
  }
  expect_index(index, {"tensor model.norm.weight is not in"});
}

TEST_F(BadIndex, ShardsThatHoldATensorTwice) {
  const std::string first = index_["weight_map"]["model.norm.weight"];
  std::filesystem::copy(shards_ / first, shards_ / "again.safetensors");
  index_["weight_map"]["model.norm.weight"] = "again.safetensors";
  expect_index(index_, {"is there twice"});
}

TEST(ReadSpec, StopTokensOfTheGenerationConfigWin) {
  const FolderCopy copy(fixture_folder("llama_default"));
  EXPECT_EQ(read_spec(copy.path()).stop_tokens, std::vector<TokenId>{2});
  write_file(copy / "generation_config.json", R"({"eos_token_id": [7, 9]})");
  EXPECT_EQ(read_spec(copy.path()).stop_tokens, (std::vector<TokenId>{7, 9}));
  EXPECT_EQ(load(copy.path())->info().stop_tokens, (std::vector<TokenId>{7, 9}));
}

TEST(ReadSpec, TheMaskTokenHasEitherName) {
  for (const char* key : {"pard_token", "ptd_token_id"}) {
    const FolderCopy copy(fixture_folder("llama_default"));
    EXPECT_EQ(load(copy.path())->info().mask_token, std::nullopt);
    json config = copy.config();
    config[key] = 9;
    copy.set_config(config);
    EXPECT_EQ(load(copy.path())->info().mask_token, 9);
  }
}

TEST(LoadOptions, UnknownDeviceAndDtype) {
  nn::LoadOptions options;
  options.device = "tpu";
  EXPECT_THROW(load_model(fixture_folder("llama_default"), options), Error);
  options.device = "cpu";
  options.dtype = kernels::DType::kFloat16;
  EXPECT_THROW(load_model(fixture_folder("llama_default"), options), Error);
}

}  // namespace
}  // namespace specmoe::nn::testing
