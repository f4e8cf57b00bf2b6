#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "tests/tokenizer/tokenizer_fixture.h"

namespace specmoe::nn {
namespace {

using nlohmann::json;
using Random = std::mt19937;

constexpr int kMutantsPerStyle = 150;

/// A value that no field expects.
json odd_value(Random& random) {
  static const std::vector<json> values{
      nullptr,
      true,
      0,
      -1,
      1e300,
      2147483647,
      4294967296,
      18446744073709551615u,
      "",
      "\u2581",
      "a(",
      "(a*)*$",
      "NFC",
      "ByteLevel",
      "Sequence",
      "Fuse",
      json::array(),
      json::object(),
      json::array({1, "a"}),
      {{"type", "Strip"}, {"content", "\u00e9"}, {"start", 2147483647}, {"stop", 2147483647}},
      {{"type", "Metaspace"}, {"replacement", " "}, {"prepend_scheme", "first"}},
      {{"Regex", "()|\\s*|\\b"}},
      {{"String", "\n"}},
      {{"type", "NFC"}}};
  return values[random() % values.size()];
}

/// Changes, removes or duplicates one value somewhere inside.
void mutate(json& value, Random& random) {
  json* at = &value;
  while (at->is_structured() && !at->empty() && random() % 4 != 0) {
    auto child = at->begin();
    std::advance(child, random() % at->size());
    if (random() % 12 == 0) {
      at->erase(child);
      return;
    }
    at = &*child;
  }
  if (at->is_array() && !at->empty() && random() % 2 == 0) {
    at->push_back((*at)[random() % at->size()]);
  } else if (at->is_string() && random() % 2 == 0) {
    *at = at->get<std::string>() + "a";
  } else {
    *at = odd_value(random);
  }
}

/// Whatever loads must work: encode and decode either give valid results or throw Error.
void exercise(const std::string& document, int& loaded) {
  static const std::vector<std::string> texts{"", "Hello, wörld 123\r\n  <s><mask> e\u0301 \u65e5\u672c",
                                              std::string("\0\xFF\xE6 a", 5),
                                              "  -- '' \u2581\u2581 x,y;z!! <|endoftext|>"};
  try {
    const auto tokenizer = Tokenizer::from_json(document);
    ++loaded;
    for (const std::string& text : texts) {
      const auto tokens = tokenizer->encode_with_offsets(text);
      std::vector<TokenId> ids;
      for (const EncodedToken& token : tokens) {
        ASSERT_TRUE(0 <= token.begin && token.begin <= token.end &&
                    token.end <= static_cast<std::int64_t>(text.size()));
        ids.push_back(token.id);
      }
      const std::string whole = tokenizer->decode(ids);
      StreamDecoder decoder(tokenizer);
      std::string streamed;
      for (const TokenId id : ids) streamed += decoder.push(id);
      ASSERT_EQ(streamed + decoder.finish(), whole);
      ASSERT_NO_THROW(json(whole).dump()) << "not UTF-8";
    }
  } catch (const Error& error) {
    ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

class TokenizerFuzz : public ::testing::TestWithParam<std::string> {};

TEST_P(TokenizerFuzz, MutatedFilesLoadOrAreRefused) {
  const std::string style = GetParam();
  const json original = testing::read_fixture(style + ".json");
  std::seed_seq seed(style.begin(), style.end());
  Random random(seed);
  int loaded = 0;
  for (int i = 0; i < kMutantsPerStyle; ++i) {
    json mutant = original;
    // Components are small beside the vocabulary: aim at one of the fields, so that each is hit often.
    static const std::vector<std::string> fields{"added_tokens",   "normalizer", "pre_tokenizer",
                                                 "post_processor", "decoder",    "model"};
    for (unsigned changes = 1 + random() % 2; changes > 0; --changes) {
      json& field = mutant[fields[random() % fields.size()]];
      mutate(field, random);
    }
    exercise(mutant.dump(), loaded);
    if (HasFatalFailure()) FAIL() << mutant.dump().substr(0, 3000);
  }
  EXPECT_GT(loaded, 0);
  EXPECT_LT(loaded, kMutantsPerStyle);
}

TEST_P(TokenizerFuzz, MutatedBytesLoadOrAreRefused) {
  const std::string original = testing::read_text(testing::fixture_folder() / (GetParam() + ".json"));
  Random random(7);
  int loaded = 0;
  for (int i = 0; i < kMutantsPerStyle; ++i) {
    std::string mutant = original;
    for (unsigned changes = 1 + random() % 3; changes > 0; --changes) {
      static const std::string kBytes = "\"{}[]:,\\0-9.ae\xFF\xC3 ";
      mutant[random() % mutant.size()] = kBytes[random() % kBytes.size()];
    }
    if (random() % 8 == 0) mutant.resize(random() % mutant.size());
    exercise(mutant, loaded);
    if (HasFatalFailure()) FAIL() << mutant.substr(0, 3000);
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerFuzz, ::testing::ValuesIn(testing::fixture_styles()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn
