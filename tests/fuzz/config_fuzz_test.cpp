// Whatever config.json says, it becomes a spec or a specmoe::Error.
#include "core/nn/draft_head.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_family.h"
#include "core/nn/rope_table.h"
#include "tests/fuzz/byte_mutator.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

constexpr int kRounds = 3000;

const std::vector<std::string> kWords = {"null",
                                         "true",
                                         "-1",
                                         "0",
                                         "1",
                                         "2",
                                         "1e999",
                                         "1e300",
                                         "-0.5",
                                         "16777216",
                                         "4096",
                                         "{}",
                                         "[]",
                                         "[[",
                                         "\"\"",
                                         "NaN",
                                         "\"x\"",
                                         "9223372036854775807",
                                         "18446744073709551616",
                                         "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0},",
                                         "\"rope_scaling\": {\"rope_type\": \"llama3\"},",
                                         "\"model_type\": \"mixtral\",",
                                         "\"head_dim\": 2,",
                                         "\"tie_word_embeddings\": 1,",
                                         "\"num_experts\": 3,",
                                         "\"draft_vocab_size\": 3,",
                                         "\"eagle_aux_hidden_state_layer_ids\": [1, 2],",
                                         "\"eagle_config\": {\"eagle_aux_hidden_state_layer_ids\": [1]},",
                                         "\"norm_before_fc\": true,"};

class ConfigFuzz : public ::testing::TestWithParam<std::string> {};

TEST_P(ConfigFuzz, SpecOrError) {
  const std::string original = read_file(load_fixture(GetParam()).folder + "/config.json");
  specmoe::testing::ByteMutator mutate(7, kWords);
  int parsed = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string text = mutate(original);
    try {
      const ModelSpec spec = parse_config(ConfigReader::parse(text, "fuzz"));
      ++parsed;
      // What parsed must be safe to reason about, without overflow.
      const ModelInfo info =
          describe_model(spec, kernels::DType::kBFloat16, kernels::DType::kFloat32, spec.tied_embeddings);
      ASSERT_GE(info.parameters, info.active_parameters) << text;
      ASSERT_GT(
          memory_table(spec, {.dtype = kernels::DType::kFloat32, .context = spec.max_positions, .threads = 2}).total(),
          0)
          << text;
      const std::optional<RopeSpec>& rope = spec.layers.front().attention.rope;
      if (rope && rope->rotary_dim < 4096) rope_frequencies(*rope);
    } catch (const Error& error) {
      ASSERT_GT(std::string(error.what()).size(), 10U);
    }
  }
  EXPECT_GT(parsed, kRounds / 50);  // mutants that nobody parses test only the JSON reader
  EXPECT_LT(parsed, kRounds);
}

class HeadConfigFuzz : public ::testing::TestWithParam<std::string> {};

TEST_P(HeadConfigFuzz, SpecOrError) {
  const std::string original = read_file(SPECMOE_TEST_DATA "/golden/heads/" + GetParam() + "/config.json");
  const bool module = GetParam().starts_with("mtp_");
  const ModelSpec target = read_spec(load_fixture(module ? GetParam().substr(4) + "_a" : "mixtral_a").folder);
  specmoe::testing::ByteMutator mutate(8, kWords);
  int parsed = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string text = mutate(original);
    try {
      const DraftHeadSpec head = parse_draft_head(ConfigReader::parse(text, "fuzz"), target);
      ++parsed;
      for (const int tap : head.taps)
        ASSERT_TRUE(tap >= 0 && tap <= static_cast<int>(target.layers.size()) + 1) << text;
      const ModelInfo info =
          describe_model(head.model, kernels::DType::kBFloat16, kernels::DType::kFloat32, head.model.tied_embeddings);
      ASSERT_GT(info.weight_bytes, 0) << text;
      ASSERT_GE(info.parameters, info.active_parameters) << text;
    } catch (const Error& error) {
      ASSERT_GT(std::string(error.what()).size(), 10U);
    }
  }
  EXPECT_GT(parsed, kRounds / 50);
  EXPECT_LT(parsed, kRounds);
}

INSTANTIATE_TEST_SUITE_P(Heads, HeadConfigFuzz,
                         ::testing::Values("dflash", "dflash_window", "eagle1", "eagle3_safeailab", "eagle3_specforge",
                                           "eagle3_speculators", "mtp_deepseek_v3", "mtp_glm4_moe",
                                           "mtp_glm4_moe_lite"),
                         [](const auto& info) { return info.param; });

INSTANTIATE_TEST_SUITE_P(Models, ConfigFuzz,
                         ::testing::Values("mixtral_a", "mixtral_c", "llama_llama3", "llama_yarn", "gemma3_text_a",
                                           "gemma3_text_b", "qwen2_moe_a", "gpt_oss_a", "phimoe_a", "deepseek_v2_b",
                                           "deepseek_v3_fp8", "ernie4_5_moe_b", "exaone_moe_b", "glm4_moe_b",
                                           "hunyuan_v1_moe_b", "llama4_text_lists"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn::testing
