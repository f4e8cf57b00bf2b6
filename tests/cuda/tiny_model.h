#pragma once

#include <nlohmann/json.hpp>

#include "tests/nn/model_fixture.h"
#include "tests/support/kernel_data.h"

namespace specmoe::testing {

/// A checkpoint of one layer with random weights, small enough for many passes in the emulation. It lasts as long as
/// the object.
///
/// noise  added to every weight: models of one seed that differ in it mostly, but not always, agree
class TinyModel {
 public:
  static constexpr int kVocab = 40;

  explicit TinyModel(const std::string& name, float noise = 0.0F) : folder_(name) {
    nlohmann::json header;
    std::string data;
    std::uint32_t seed = 1;
    const auto add = [&](const std::string& tensor, std::vector<int> shape, float scale) {
      std::int64_t count = 1;
      for (const int size : shape) count *= size;
      std::vector<float> values = kernels::random_floats(count, ++seed, scale);
      const std::vector<float> off = kernels::random_floats(count, 1000 + seed, noise * scale);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += off[i] + (shape.size() == 1 ? 1.0F : 0.0F);
      const std::size_t begin = data.size();
      data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
      header[tensor] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
    };
    add("model.embed_tokens.weight", {kVocab, kHidden}, 1.0F);
    add("lm_head.weight", {kVocab, kHidden}, 0.7F);
    add("model.norm.weight", {kHidden}, 0.1F);
    const std::string layer = "model.layers.0.";
    add(layer + "input_layernorm.weight", {kHidden}, 0.1F);
    add(layer + "post_attention_layernorm.weight", {kHidden}, 0.1F);
    for (const std::string part : {"q", "k", "v", "o"}) {
      add(layer + "self_attn." + part + "_proj.weight", {kHidden, kHidden}, 0.4F);
    }
    add(layer + "block_sparse_moe.gate.weight", {kExperts, kHidden}, 0.5F);
    for (int expert = 0; expert < kExperts; ++expert) {
      for (const std::string part : {"w1", "w2", "w3"}) {
        add(layer + "block_sparse_moe.experts." + std::to_string(expert) + "." + part + ".weight", {kHidden, kHidden},
            0.5F);
      }
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = text.size();
    nn::testing::write_file(path() + "/model.safetensors",
                            std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text + data);
    nn::testing::write_file(path() + "/config.json", config().dump());
  }
  std::string path() const { return folder_.path.string(); }

 private:
  static constexpr int kHidden = 16;
  static constexpr int kExperts = 3;

  struct Folder {
    explicit Folder(const std::string& name)
        : path(std::filesystem::temp_directory_path() / concat("specmoe_", name, "_", getpid())) {
      std::filesystem::create_directories(path);
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::filesystem::path path;
  } folder_;

  static nlohmann::json config() {
    return {{"architectures", {"MixtralForCausalLM"}},
            {"model_type", "mixtral"},
            {"hidden_act", "silu"},
            {"hidden_size", kHidden},
            {"intermediate_size", kHidden},
            {"num_hidden_layers", 1},
            {"num_attention_heads", 2},
            {"num_key_value_heads", 2},
            {"head_dim", kHidden / 2},
            {"num_local_experts", kExperts},
            {"num_experts_per_tok", 2},
            {"vocab_size", kVocab},
            {"max_position_embeddings", 512},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 10000.0},
            {"sliding_window", nullptr},
            {"tie_word_embeddings", false},
            {"bos_token_id", 1},
            {"eos_token_id", 2}};
  }
};

}  // namespace specmoe::testing
