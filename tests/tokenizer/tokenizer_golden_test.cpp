#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>

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

class TokenizerGolden : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Tokenizer> tokenizer_ = testing::load_fixture(GetParam());
  json golden_ = testing::read_fixture(GetParam() + ".golden.json");
};

TEST_P(TokenizerGolden, EncodesLikeTheReference) {
  const auto texts = testing::fixture_texts();
  const json& encodings = golden_["encodings"];
  ASSERT_EQ(texts.size(), encodings.size());
  ASSERT_GE(texts.size(), 300u);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::vector<TokenId> ids;
    std::vector<std::int64_t> offsets;
    for (const EncodedToken& token : tokenizer_->encode_with_offsets(texts[i])) {
      ids.push_back(token.id);
      offsets.push_back(token.begin);
      offsets.push_back(token.end);
    }
    const json& expected = encodings[i];
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

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerGolden, ::testing::ValuesIn(testing::fixture_styles()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn
