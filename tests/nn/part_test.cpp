#include <gtest/gtest.h>

#include <cmath>

#include "tests/nn/part_checks.h"

namespace specmoe::nn::testing {
namespace {

/// Sets what layer 0 of a mixtral checkpoint adds to the stream to zero.
void silence_first_layer(const std::filesystem::path& path) {
  std::string bytes = read_file(path);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const SafetensorsFile file(path.string());
  int zeroed = 0;
  for (const Tensor& tensor : file.tensors()) {
    const bool adds = tensor.name.find(".w2.") != std::string::npos || tensor.name.find("o_proj") != std::string::npos;
    if (!adds || tensor.name.find("layers.0.") == std::string::npos) continue;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(8 + header + tensor.begin), tensor.end - tensor.begin,
                '\0');
    ++zeroed;
  }
  ASSERT_EQ(zeroed, 9);
  write_file(path, bytes);
}

std::string part_error(const LanguageModel& model, const ModelPart& part) {
  try {
    model.partial(part);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ModelPart, OfEverythingIsTheWhole) {
  for (const std::string& name : fixture_names()) {
    const Fixture fixture = load_fixture(name);
    const auto whole = load(fixture.folder);
    EXPECT_TRUE(same_bits(logits_of(*whole->partial({}), fixture.ids), logits_of(*whole, fixture.ids))) << name;
  }
}

TEST(ModelPart, OfFewerExpertsIsTheCheckpointThatUsesFewer) {
  for (const char* name : {"mixtral_a", "qwen3_moe_a", "olmoe_a"}) {
    const Fixture fixture = load_fixture(name);
    const FolderCopy fewer(fixture.folder);
    fewer.set_config("num_experts_per_tok", 1);
    const auto whole = load(fixture.folder);
    const auto part = whole->partial({.experts_per_token = 1});
    const std::vector<float> logits = logits_of(*part, fixture.ids);
    EXPECT_TRUE(same_bits(logits, logits_of(*load(fewer.path()), fixture.ids))) << name;
    EXPECT_FALSE(same_bits(logits, logits_of(*whole, fixture.ids))) << name;
    EXPECT_EQ(part->info().experts_per_token, 1);
    EXPECT_LT(part->info().active_weight_bytes, whole->info().active_weight_bytes);
    EXPECT_EQ(part->info().weight_bytes, whole->info().weight_bytes);
  }
}

TEST(ModelPart, OfTheFirstLayersLeavesWhatTheWholeHoldsThere) {
  for (const std::string& name : fixture_names()) {
    const Fixture fixture = load_fixture(name);
    expect_parts_hold_boundaries(*load(fixture.folder, kernels::DType::kFloat32, 2), fixture);
  }
}

/// Behind the last layer and behind the final norm: their ratio is the norm's weight, the same in every row.
TEST(ModelPart, TheLastBoundaryIsTheNormedStream) {
  const Fixture fixture = load_fixture("mixtral_a");
  const auto model = load(fixture.folder);
  const auto cache = model->new_cache(64);
  const std::vector<std::int32_t> star(fixture.ids.size(), -1);
  const int layers = model->info().layers;
  const std::vector<float> rows = run_rows(*model, *cache, fixture.ids, star, {layers, layers + 1}).tapped;
  const auto width = static_cast<std::size_t>(model->info().hidden_size);
  const auto weight = [&](std::size_t row, std::size_t d) {
    const std::span<const float> stream = std::span(rows).subspan(2 * row * width, width);
    double squares = 1e-5 * static_cast<double>(width);
    for (const float value : stream) squares += static_cast<double>(value) * value;
    return rows[(2 * row + 1) * width + d] / stream[d] * std::sqrt(squares / static_cast<double>(width));
  };
  for (std::size_t d = 0; d < width; ++d) {
    EXPECT_GT(std::abs(weight(0, d) - 1.0), 1e-6) << "a norm without weight";
    for (std::size_t row = 1; row < fixture.ids.size(); ++row) ASSERT_NEAR(weight(row, d), weight(0, d), 1e-4);
  }
}

/// A layer whose last products are zero hands on what it gets.
TEST(ModelPart, WithoutALayerIsTheModelWhoseLayerAddsNothing) {
  const Fixture fixture = load_fixture("mixtral_a");
  const FolderCopy silent(fixture.folder);
  silence_first_layer(silent / "model.safetensors");
  const auto whole = load(fixture.folder);
  const auto part = whole->partial({.skipped_layers = {0}});
  EXPECT_TRUE(same_bits(logits_of(*part, fixture.ids), logits_of(*load(silent.path()), fixture.ids)));
  EXPECT_EQ(part->info().layers, whole->info().layers - 1);
  EXPECT_LT(part->info().kv_bytes_per_token, whole->info().kv_bytes_per_token);
}

TEST(ModelPart, OutlivesTheWhole) {
  const Fixture fixture = load_fixture("mixtral_a");
  auto whole = load(fixture.folder);
  const std::vector<float> logits = logits_of(*whole, fixture.ids);
  const auto part = whole->partial({});
  whole.reset();
  EXPECT_TRUE(same_bits(logits_of(*part, fixture.ids), logits));
}

TEST(ModelPart, RefusesWhatIsNotThere) {
  const auto mixture = load(load_fixture("mixtral_a").folder);
  const int layers = mixture->info().layers;
  EXPECT_NE(part_error(*mixture, {.experts_per_token = 3}).find("uses 2 experts a token, and cannot use 3"),
            std::string::npos);
  EXPECT_NE(part_error(*mixture, {.experts_per_token = -1}).find("cannot use -1"), std::string::npos);
  EXPECT_NE(part_error(*mixture, {.skipped_layers = {layers}}).find("cannot leave out " + std::to_string(layers)),
            std::string::npos);
  std::vector<int> all(static_cast<std::size_t>(layers));
  std::iota(all.begin(), all.end(), 0);
  EXPECT_NE(part_error(*mixture, {.skipped_layers = all}).find("cannot leave out all"), std::string::npos);
  const auto dense = load(load_fixture("llama_default").folder);
  EXPECT_NE(part_error(*dense, {.experts_per_token = 1}).find("has no experts"), std::string::npos);
}

}  // namespace
}  // namespace specmoe::nn::testing
