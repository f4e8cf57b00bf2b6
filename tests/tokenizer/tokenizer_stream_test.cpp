#include <gtest/gtest.h>

#include <random>

#include "core/nn/tokenizer_utf8.h"
#include "tests/tokenizer/tokenizer_fixture.h"

namespace specmoe::nn {
namespace {

class TokenizerStream : public ::testing::TestWithParam<std::string> {
 protected:
  /// Pushes the ids one by one; every text returned on the way must be whole characters and a prefix of decode().
  void expect_streams(const std::vector<TokenId>& ids, bool skip_special) {
    const std::string whole = tokenizer_->decode(ids, skip_special);
    StreamDecoder decoder(tokenizer_, skip_special);
    for (int round = 0; round < 2; ++round) {  // finish() must leave it as new
      std::string text;
      for (const TokenId id : ids) {
        const std::string added = decoder.push(id);
        EXPECT_TRUE(is_utf8(added)) << nlohmann::json(ids).dump();
        text += added;
        ASSERT_TRUE(whole.starts_with(text)) << nlohmann::json(ids).dump();
      }
      text += decoder.finish();
      ASSERT_EQ(text, whole) << nlohmann::json(ids).dump();
    }
  }

  std::shared_ptr<const Tokenizer> tokenizer_ = testing::load_fixture(GetParam());
};

TEST_P(TokenizerStream, EqualsDecodeForRandomIds) {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    // The lowest ids are bytes: half the rounds draw mostly broken characters. Some ids have no token.
    const int limit = round % 2 == 0 ? 270 : tokenizer_->vocab_size() + 3;
    std::vector<TokenId> ids(random() % 20);
    for (TokenId& id : ids) id = static_cast<TokenId>(random() % limit) - (round % 7 == 0 ? 1 : 0);
    expect_streams(ids, round % 3 != 0);
  }
}

TEST_P(TokenizerStream, EqualsDecodeForTexts) {
  for (const std::string& text : testing::fixture_texts()) {
    if (text.size() < 2000) expect_streams(tokenizer_->encode(text), true);
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerStream, ::testing::ValuesIn(testing::fixture_styles()),
                         [](const auto& info) { return info.param; });

TEST(TokenizerStream, HoldsBackOnlyWhatCanChange) {
  const auto tokenizer = testing::load_fixture("gpt2");
  StreamDecoder decoder(tokenizer);
  const std::vector<TokenId> ids = tokenizer->encode(
      "a\xF0\x9F\x91\x8D"
      "b");  // the emoji is four byte tokens
  ASSERT_EQ(ids.size(), 6u);
  const std::vector<std::string> expected{"a", "", "", "", "\xF0\x9F\x91\x8D", "b"};
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(decoder.push(ids[i]), expected[i]);
  EXPECT_EQ(decoder.finish(), "");
}

TEST(TokenizerStream, CutOffCharacterComesOutAtTheEnd) {
  const auto tokenizer = testing::load_fixture("gpt2");
  StreamDecoder decoder(tokenizer);
  std::vector<TokenId> ids = tokenizer->encode("a\xF0\x9F\x91\x8D");
  ids.pop_back();
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
}

TEST(TokenizerStream, ByteFallbackRunIsAllOrNothing) {
  const auto tokenizer = testing::load_fixture("llama2");
  const auto byte = [&](const char* token) { return *tokenizer->id_of(token); };
  // <0x0A> alone would be a line feed; in one run with a broken byte each of them decodes to U+FFFD.
  EXPECT_EQ(tokenizer->decode(std::vector{byte("<0x0A>"), byte("<0xE6>")}), "\xEF\xBF\xBD\xEF\xBF\xBD");
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(byte("<0x0A>")), "");
  EXPECT_EQ(decoder.push(byte("a")), "\na");
}

}  // namespace
}  // namespace specmoe::nn
