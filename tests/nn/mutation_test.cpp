// Every field of config.json and every tensor matters: changing one must break parity or loading. This is what shows
// that the parity tests look at all of them.
#include <cmath>
#include <cstring>
#include <set>

#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

using nlohmann::json;

/// Fields without influence on what a forward pass computes.
const std::set<std::string> kNeutral = {"architectures",
                                        "attention_dropout",
                                        "bos_token_id",
                                        "dtype",
                                        "eos_token_id",
                                        "initializer_range",
                                        "max_position_embeddings",
                                        "output_router_logits",
                                        "pad_token_id",
                                        "pretraining_tp",
                                        "router_aux_loss_coef",
                                        "router_jitter_noise",
                                        "torch_dtype",
                                        "transformers_version",
                                        "use_cache"};

bool parity(const Fixture& fixture, const std::string& folder) {
  const auto model = load(folder);
  const auto cache = model->new_cache(64);
  const ForwardResult result = append(*model, *cache, fixture.ids);
  if (result.logits.size() != fixture.logits.size()) return false;
  float largest = 1.0F;
  for (const float value : fixture.logits) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < result.logits.size(); ++i) {
    if (!(std::abs(result.logits[i] - fixture.logits[i]) <= 1e-4F * largest)) return false;
  }
  return true;
}

/// True when the folder no longer loads or no longer gives the same logits.
bool breaks(const Fixture& fixture, const std::string& folder) {
  try {
    return !parity(fixture, folder);
  } catch (const Error&) {
    return true;
  }
}

json other_value(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number_integer()) return value.get<long>() + 1;
  if (value.is_number()) return value.get<double>() * 1.5 + 1;
  if (value.is_null()) return 6;  // neither the derived head_dim nor wider than the text
  return "other";
}

class Mutation : public ::testing::TestWithParam<std::string> {
 protected:
  /// Changes every field of the object at `pointer` in turn.
  void mutate_fields(const json::json_pointer& pointer) {
    const json original = copy_.config();
    for (const auto& [key, value] : original[pointer].items()) {
      if (kNeutral.contains(key) || is_neutral_here(key, value)) continue;
      if (value.is_object()) {
        mutate_fields(pointer / key);
        continue;
      }
      json changed = original;
      changed[pointer / key] = other_value(value);
      copy_.set_config(changed);
      EXPECT_TRUE(breaks(fixture_, copy_.path()))
          << GetParam() << ": " << pointer / key << " = " << changed[pointer / key] << " changes nothing";
    }
    copy_.set_config(original);
  }
  /// Dynamic scaling sets in beyond the context, where we refuse. A checkpoint with both tensors is not tied, whatever
  /// its configuration says (transformers 5).
  bool is_neutral_here(const std::string& key, const json& value) const {
    return (GetParam() == "llama_dynamic" && key == "factor") || (key == "tie_word_embeddings" && value == false);
  }

  Fixture fixture_ = load_fixture(GetParam());
  FolderCopy copy_{fixture_.folder};
};

TEST_P(Mutation, EveryConfigField) {
  ASSERT_TRUE(parity(fixture_, copy_.path()));
  mutate_fields(json::json_pointer());
}

/// Negates one tensor at a time, in place.
TEST_P(Mutation, EveryTensor) {
  for (const auto& entry : std::filesystem::directory_iterator(copy_.path())) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("model") || !file.ends_with(".safetensors")) continue;
    const std::string original = read_file(entry.path());
    std::uint64_t header = 0;
    std::memcpy(&header, original.data(), sizeof(header));
    const std::vector<Tensor> tensors = SafetensorsFile(entry.path().string()).tensors();
    for (const Tensor& tensor : tensors) {
      std::string bytes = original;
      const std::size_t width = tensor.dtype == "F32" ? 4 : 2;
      for (std::size_t at = tensor.begin + width - 1; at < tensor.end; at += width) bytes[8 + header + at] ^= '\x80';
      write_file(entry.path(), bytes);
      EXPECT_TRUE(breaks(fixture_, copy_.path())) << GetParam() << ": " << tensor.name << " has no influence";
    }
    write_file(entry.path(), original);
  }
  EXPECT_TRUE(parity(fixture_, copy_.path()));
}

INSTANTIATE_TEST_SUITE_P(Models, Mutation, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

/// Fields that the fixtures leave at their defaults.
TEST(MutationOfAbsentFields, Count) {
  const std::vector<std::tuple<std::string, std::string, json>> changes = {
      {"llama_yarn", "/rope_parameters/beta_slow", 4.0},
      {"llama_yarn", "/rope_parameters/truncate", false},
      {"llama_yarn", "/rope_parameters/attention_factor", 1.5},
      {"llama_yarn", "/original_max_position_embeddings", 96},
      {"llama_default", "/rope_parameters/rope_theta", 500000.0},
      {"llama_default", "/attention_bias", true},
      {"llama_default", "/mlp_bias", true},
      {"llama_default", "/head_dim", 8},
      {"mixtral_a", "/sliding_window", 16},
      {"mixtral_c", "/rope_theta", 10000.0},
      {"mixtral_c", "/num_key_value_heads", 4},
  };
  for (const auto& [name, pointer, value] : changes) {
    const Fixture fixture = load_fixture(name);
    const FolderCopy copy(fixture.folder);
    json config = copy.config();
    config[json::json_pointer(pointer)] = value;
    copy.set_config(config);
    EXPECT_TRUE(breaks(fixture, copy.path())) << name << " " << pointer;
  }
  const Fixture fixture = load_fixture("llama_yarn");
  const FolderCopy copy(fixture.folder);
  json config = copy.config();
  config["rope_parameters"]["mscale"] = 0.5;
  config["rope_parameters"]["mscale_all_dim"] = 2.0;
  copy.set_config(config);
  EXPECT_TRUE(breaks(fixture, copy.path()));
}

}  // namespace
}  // namespace specmoe::nn::testing
