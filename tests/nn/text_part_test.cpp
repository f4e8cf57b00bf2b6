// Checkpoints of models that see images too: the language part is found in all spellings of tensor names.
#include <cmath>
#include <cstring>
#include <functional>

#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

using nlohmann::json;

/// Renames all tensors by `rename` and adds one of the part that sees.
void rewrite(const FolderCopy& copy, const std::function<std::string(const std::string&)>& rename,
             const std::string& seeing) {
  const std::string bytes = read_file(copy / "model.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  const json old = json::parse(bytes.substr(8, length));
  const std::uint64_t end = bytes.size() - 8 - length;
  json header;
  for (const auto& [name, entry] : old.items()) header[name == "__metadata__" ? name : rename(name)] = entry;
  header[seeing] = {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
  const std::string text = header.dump();
  const std::string data = bytes.substr(8 + length) + std::string(4, '\0');
  length = text.size();
  write_file(copy / "model.safetensors", std::string(reinterpret_cast<const char*>(&length), 8) + text + data);
}

void expect_parity(const Fixture& fixture, const std::string& folder) {
  const auto model = load(folder);
  const auto cache = model->new_cache(64);
  const ForwardResult result = append(*model, *cache, fixture.ids);
  float largest = 1.0F;
  for (const float value : fixture.logits) largest = std::max(largest, std::abs(value));
  ASSERT_EQ(result.logits.size(), fixture.logits.size());
  for (std::size_t i = 0; i < result.logits.size(); ++i) {
    ASSERT_NEAR(result.logits[i], fixture.logits[i], 1e-4F * largest);
  }
}

struct Wrapped {
  std::string model_type, fixture, seeing;
};
const std::vector<Wrapped> kWrapped = {{"llama4", "llama4_text_scout", "vision_model.patch.weight"},
                                       {"gemma3", "gemma3_text_a", "vision_tower.patch.weight"}};

TEST(TextPart, BeforeAndBehindModel) {
  for (const auto& [model_type, name, seeing] : kWrapped) {
    const Fixture fixture = load_fixture(name);
    const FolderCopy copy(fixture.folder);
    copy.set_config({{"model_type", model_type}, {"text_config", copy.config()}});
    rewrite(copy, [](const std::string& old) { return "language_model." + old; }, seeing);
    expect_parity(fixture, copy.path());
    const FolderCopy newer(fixture.folder);
    newer.set_config({{"model_type", model_type}, {"text_config", newer.config()}});
    const auto rename = [](const std::string& old) {
      return old.starts_with("model.") ? "model.language_model." + old.substr(6) : old;
    };
    rewrite(newer, rename, "model." + seeing);
    expect_parity(fixture, newer.path());
  }
}

TEST(TextPart, Refused) {
  const FolderCopy copy(load_fixture("llama4_text_scout").folder);
  const json text = copy.config();
  copy.set_config({{"model_type", "llama4"}});
  EXPECT_NE(load_error(copy.path()).find("text_config is missing"), std::string::npos);
  copy.set_config({{"model_type", "gemma3"}, {"text_config", text}});
  EXPECT_NE(load_error(copy.path()).find("text_config.model_type 'llama4_text'"), std::string::npos);
  copy.set_config(
      {{"model_type", "llama4"}, {"text_config", text}, {"quantization_config", {{"quant_method", "fp8"}}}});
  EXPECT_NE(load_error(copy.path()).find("quantization_config is not supported"), std::string::npos);
}

}  // namespace
}  // namespace specmoe::nn::testing
