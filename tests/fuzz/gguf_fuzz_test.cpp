// Whatever a GGUF file holds, it is a model, and perhaps a tokenizer, or a specmoe::Error. tests/fuzz/run.sh looks
// deeper, guided by coverage.
#include "core/nn/gguf_model.h"
#include "core/nn/model_family.h"
#include "core/nn/tokenizer.h"
#include "tests/fuzz/byte_mutator.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

std::string little_endian(std::uint64_t number, std::size_t bytes) {
  return {reinterpret_cast<const char*>(&number), bytes};
}

const std::vector<std::string> kWords = {little_endian(0, 8),
                                         little_endian(1, 8),
                                         little_endian(~std::uint64_t{0}, 8),
                                         little_endian(1ULL << 62, 8),
                                         little_endian(0x7fffffff, 4),
                                         little_endian(8, 4),
                                         little_endian(9, 4),
                                         little_endian(12, 4),
                                         "llama.block_count",
                                         "llama.attention.head_count",
                                         "llama.expert_count",
                                         "qwen3moe",
                                         "gemma3",
                                         "general.alignment",
                                         "token_embd.weight",
                                         "rope_freqs.weight",
                                         "blk.0.ffn_gate_exps.weight",
                                         "tokenizer.ggml.tokens"};

class GgufFuzz : public ::testing::TestWithParam<std::string> {};

TEST_P(GgufFuzz, ModelOrError) {
  constexpr int kRounds = 400;
  const FolderCopy copy(SPECMOE_TEST_DATA "/golden/" + GetParam());
  const std::string file = GetParam().starts_with("gguf/") ? "model.gguf" : "smollm2.gguf";
  const std::string original = read_file(copy / file);
  const std::size_t header = std::min<std::size_t>(original.size(), 6000);
  specmoe::testing::ByteMutator mutate(17, kWords);
  int loaded = 0;
  for (int round = 0; round < kRounds; ++round) {
    // Half of the mutants keep their length, so that offsets still fit and later checks are reached.
    std::string bytes = original;
    if (round % 2 == 0) {
      const std::string& word = kWords[mutate.below(kWords.size())];
      bytes.replace(mutate.below(header - word.size()), word.size(), word);
    } else {
      bytes = mutate(original.substr(0, header)) + original.substr(header);
    }
    write_file(copy / file, bytes);
    try {
      Tokenizer::find(copy / file);
      load((copy / file).string());
      ++loaded;
    } catch (const Error& error) {
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
  EXPECT_LT(loaded, kRounds);
}

INSTANTIATE_TEST_SUITE_P(Files, GgufFuzz, ::testing::Values("gguf/llama", "gguf/mixtral", "gguf/llama3", "tokenizer"),
                         [](const auto& info) { return info.param.substr(info.param.find('/') + 1); });

}  // namespace
}  // namespace specmoe::nn::testing
