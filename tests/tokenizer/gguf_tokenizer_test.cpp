// GGUF metadata that are no tokenizer we know: refused in one line. What loads is compared in
// tokenizer_golden_test.cpp.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "kernels/check.h"
#include "tests/tokenizer/tokenizer_fixture.h"

namespace specmoe::nn {
namespace {

namespace fs = std::filesystem;

class GgufTokenizer : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove(path_); }

  /// What loading says when the first `from` in a fixture's file is replaced by `to`, of the same length.
  std::string error_with(const std::string& style, const std::string& from, const std::string& to) {
    std::string bytes = testing::read_text(testing::fixture_folder() / (style + ".gguf"));
    const std::size_t at = bytes.find(from);
    EXPECT_TRUE(at != std::string::npos && from.size() == to.size()) << from;
    bytes.replace(at, from.size(), to);
    std::ofstream(path_, std::ios::binary) << bytes;
    try {
      Tokenizer::from_file(path_);
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
      return text;
    }
    return "";
  }
  void expect(const std::string& text, const std::string& wanted) {
    EXPECT_NE(text.find(wanted), std::string::npos) << "wanted: " << wanted << "\ngot: " << text;
  }

  fs::path path_ = fs::temp_directory_path() / ("specmoe_tokenizer_" + std::to_string(getpid()) + ".gguf");
};

TEST_F(GgufTokenizer, RefusesWhatItDoesNotKnow) {
  expect(error_with("smollm2", "smollm", "smolly"), "tokenizer.ggml.pre \"smolly\" is not supported; known: gpt-2, ");
  expect(error_with("smollm2", "ggml.pre", "ggml.Pre"), "no tokenizer.ggml.pre");
  expect(error_with("smollm2", "gpt2", "bert"), "tokenizer.ggml.model \"bert\" is not supported; known: gpt2, llama");
  expect(error_with("smollm2", "ggml.model", "ggml.Model"), "holds no tokenizer");
  expect(error_with("smollm2", "ggml.merges", "ggml.Merges"), "no tokenizer.ggml.merges");
  expect(error_with("smollm2", "ggml.tokens", "ggml.Tokens"), "no tokenizer.ggml.tokens");
  expect(error_with("mixtral", "ggml.scores", "ggml.Scores"), "a score for each of the 550 tokens");
}

TEST_F(GgufTokenizer, RefusesTokensThatContradictEachOther) {
  expect(error_with("mixtral", "<0x41>", "<0x42>"), "token \"<0x42>\" is there twice");
  expect(error_with("mixtral", "<0x41>", "<0x41\xFF"), "is not UTF-8");
  expect(error_with("smollm2", "\u0120 t", "\u0120 \xFF"), "merge");
}

TEST_F(GgufTokenizer, AModelWithoutOneHasNone) {
  EXPECT_EQ(Tokenizer::find(SPECMOE_TEST_DATA "/golden/gguf/mixtral"), nullptr);
  EXPECT_EQ(Tokenizer::find(SPECMOE_TEST_DATA "/golden/models/mixtral_a"), nullptr);
  EXPECT_NE(Tokenizer::find(testing::fixture_folder() / "gpt2.gguf"), nullptr);
  EXPECT_EQ(tokenizer_document(testing::fixture_folder() / "gpt2.json"),
            testing::read_text(testing::fixture_folder() / "gpt2.json"));
}

}  // namespace
}  // namespace specmoe::nn
