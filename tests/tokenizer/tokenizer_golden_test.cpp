#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>

#include "core/nn/tokenizer_text.h"
#include "tests/tokenizer/tokenizer_fixture.h"

namespace specmoe::nn {
namespace {

using nlohmann::json;

/// FNV-1a over the numbers as little-endian 32-bit words: how the fixtures store long lists.
template <class Numbers>
std::string fnv(const Numbers& numbers) {
  std::uint64_t value = 0xCBF29CE484222325u;
  for (const auto number : numbers) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ (static_cast<std::uint32_t>(number) >> shift & 0xFF)) * 0x100000001B3u;
    }
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string fnv_of_bytes(const std::string& text) { return fnv(std::vector<unsigned char>(text.begin(), text.end())); }

/// A tokenizer.json, or the same tokenizer as GGUF metadata.
class TokenizerGolden : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Tokenizer> tokenizer_ = Tokenizer::from_file(testing::fixture_folder() / GetParam());
  json golden_ = testing::read_fixture(GetParam().substr(0, GetParam().find('.')) + ".golden.json");
};

std::vector<std::string> fixture_files() {
  std::vector<std::string> files;
  for (const std::string& style : testing::fixture_styles()) {
    for (const std::string& file : {style + ".json", style + ".gguf"}) {
      if (std::filesystem::exists(testing::fixture_folder() / file)) files.push_back(file);
    }
  }
  return files;
}

TEST_P(TokenizerGolden, EncodesLikeTheReference) {
  const auto texts = testing::fixture_texts();
  const json& encodings = golden_["encodings"];
  ASSERT_EQ(texts.size(), encodings.size());
  ASSERT_GE(texts.size(), 2000u);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::vector<TokenId> ids;
    std::vector<std::int64_t> offsets;
    for (const EncodedToken& token : tokenizer_->encode_with_offsets(texts[i])) {
      ids.push_back(token.id);
      offsets.push_back(token.begin);
      offsets.push_back(token.end);
    }
    const json& expected = encodings[i];
    if (expected.is_string()) {
      std::vector<std::int64_t> all(ids.begin(), ids.end());
      all.insert(all.end(), offsets.begin(), offsets.end());
      for (const unsigned char byte : tokenizer_->decode(ids)) all.push_back(byte);
      EXPECT_EQ(fnv(all), expected) << json(texts[i]).dump().substr(0, 200) << json(ids).dump().substr(0, 200);
      continue;
    }
    EXPECT_EQ(expected["ids"].is_string() ? json(fnv(ids)) : json(ids), expected["ids"])
        << json(texts[i]).dump().substr(0, 200);
    EXPECT_EQ(fnv(offsets), expected["offsets"])
        << json(texts[i]).dump().substr(0, 200) << json(ids).dump().substr(0, 200)
        << json(offsets).dump().substr(0, 400);
    EXPECT_EQ(tokenizer_->encode(texts[i]), ids);
  }
}

TEST_P(TokenizerGolden, DecodesItsOwnIdsLikeTheReference) {
  const auto texts = testing::fixture_texts();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const json& expected = golden_["encodings"][i];
    if (expected.is_string()) continue;  // a hash that covers the text
    const std::string decoded = tokenizer_->decode(tokenizer_->encode(texts[i]));
    if (!expected.contains("text")) {
      EXPECT_EQ(decoded, texts[i]);
    } else {
      EXPECT_TRUE(expected["text"] == decoded || expected["text"] == fnv_of_bytes(decoded))
          << json(decoded).dump().substr(0, 300) << " expected " << expected["text"].dump();
    }
  }
}

TEST_P(TokenizerGolden, DecodesAnyIdsLikeTheReference) {
  for (const json& expected : golden_["decodings"]) {
    const auto ids = expected["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer_->decode(ids), expected["text"]) << expected["ids"].dump();
    EXPECT_EQ(tokenizer_->decode(ids, false), expected["with_special"]) << expected["ids"].dump();
  }
}

/// Inside a text, behind another token, a text is the bytes of its tokens.
TEST_P(TokenizerGolden, TheBytesOfTokensAreTheText) {
  const std::vector<TokenId> before = tokenizer_->encode("a", false);
  for (const std::string& text : testing::fixture_texts()) {
    std::vector<TokenId> ids = before;
    std::string bytes = tokenizer_->decode(before, false);
    for (const TokenId id : tokenizer_->encode(text, false)) {
      ids.push_back(id);
      bytes += tokenizer_->token_bytes(id);
    }
    const std::string whole = AlignedText::from_caller(bytes).text;  // an added token may hold a part of a character
    EXPECT_EQ(tokenizer_->decode(ids, false), whole) << json(text).dump().substr(0, 200);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerGolden, ::testing::ValuesIn(fixture_files()), [](const auto& info) {
  std::string name = info.param;
  name[name.find('.')] = '_';
  return name;
});

}  // namespace
}  // namespace specmoe::nn
