#include "core/nn/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/nn/tokenizer_unicode.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"
#include "tests/tokenizer/tokenizer_fixture.h"

namespace specmoe::nn {
namespace {

using nlohmann::json;

/// A tokenizer over a, b, ab and a space, with nothing around the model.
json small() {
  return json::parse(R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, " ": 3}, "merges": [["a", "b"]]}})");
}

json added(int id, const std::string& content, bool special = false) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

std::shared_ptr<const Tokenizer> load(const json& document) { return Tokenizer::from_json(document.dump()); }

using Ids = std::vector<TokenId>;

/// Loading must fail in one line that names `culprit`.
void expect_refused(const std::string& document, const std::string& culprit) {
  try {
    Tokenizer::from_json(document);
    ADD_FAILURE() << "not refused: " << culprit;
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(culprit), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_LT(text.size(), 400u) << text;
  }
}

void expect_refused(const json& document, const std::string& culprit) { expect_refused(document.dump(), culprit); }

/// The small tokenizer with one field changed.
json changed(const char* pointer, json value) {
  json document = small();
  document[json::json_pointer(pointer)] = std::move(value);
  return document;
}

TEST(Tokenizer, MergesByRankThenLeftmost) {
  json document = small();
  document["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"aa", 2}, {"ab", 3}, {"aab", 4}};
  document["model"]["merges"] = json::parse(R"([["a", "a"], ["a", "b"], ["aa", "b"]])");
  EXPECT_EQ(load(document)->encode("aaab"), (Ids{2, 3}));
  EXPECT_EQ(load(document)->encode("aab"), (Ids{4}));
  document["model"]["merges"] = json::parse(R"(["#version: 0.2", "a b", "a a"])");
  EXPECT_EQ(load(document)->encode("aab"), (Ids{0, 3}));
}

TEST(Tokenizer, LooksUpTokens) {
  json document = small();
  document["added_tokens"] = {added(4, "<s>", true), added(7, "<gap>")};
  const auto tokenizer = load(document);
  EXPECT_EQ(tokenizer->vocab_size(), 8);
  EXPECT_EQ(tokenizer->id_of("ab"), 2);
  EXPECT_EQ(tokenizer->id_of("<s>"), 4);
  EXPECT_EQ(tokenizer->id_of("zzz"), std::nullopt);
  EXPECT_EQ(tokenizer->token_text(7), "<gap>");
  for (const TokenId id : {-1, 5, 8, 1 << 30}) {
    EXPECT_EQ(tokenizer->token_text(id), "");
    EXPECT_FALSE(tokenizer->is_special(id));
    EXPECT_EQ(tokenizer->decode(std::vector{id}), "");
  }
  EXPECT_TRUE(tokenizer->is_special(4));
  EXPECT_FALSE(tokenizer->is_special(7));
  EXPECT_EQ(tokenizer->decode(Ids{0, 4, 2, 7}), "aab<gap>");
  EXPECT_EQ(tokenizer->decode(Ids{0, 4, 2, 7}, false), "a<s>ab<gap>");
}

TEST(Tokenizer, GivesTheBytesOfOneToken) {
  const auto byte_level = testing::load_fixture("gpt2");
  EXPECT_EQ(byte_level->token_bytes(*byte_level->id_of("\u0120the")), " the");
  EXPECT_EQ(byte_level->token_bytes(*byte_level->id_of("\u00E6")), "\xE6") << "a part of a character";
  const auto metaspace = testing::load_fixture("llama2");
  EXPECT_EQ(metaspace->token_bytes(*metaspace->id_of("\u2581the")), " the");
  EXPECT_EQ(metaspace->token_bytes(*metaspace->id_of("<0xE6>")), "\xE6");
  EXPECT_EQ(metaspace->token_bytes(*metaspace->id_of("<s>")), "<s>");
  for (const TokenId id : {-1, metaspace->vocab_size()}) EXPECT_EQ(metaspace->token_bytes(id), "");
  json document = small();
  document["decoder"] = {{"type", "Strip"}, {"content", "b"}, {"start", 1}, {"stop", 1}};
  EXPECT_EQ(load(document)->token_bytes(2), "a") << "off every token";
  document["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, document["decoder"]}}};
  EXPECT_EQ(load(document)->token_bytes(2), "ab") << "off the ends of the text alone";
  document["decoder"] = nullptr;
  EXPECT_EQ(load(document)->token_bytes(2), " ab") << "tokens joined by spaces";
}

TEST(Tokenizer, NamesWhatComesBeforeAText) {
  const auto with_begin = testing::load_fixture("llama3");
  EXPECT_EQ(with_begin->begin_tokens(), Ids{*with_begin->id_of("<|begin_of_text|>")});
  EXPECT_EQ(testing::load_fixture("gpt2")->begin_tokens(), Ids{});
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const auto special = [](const char* token) { return json{{"SpecialToken", {{"id", token}, {"type_id", 0}}}}; };
  const auto ids = [](const char* token, TokenId id) {
    return json{{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  const auto both = load(changed("/post_processor", {{"type", "TemplateProcessing"},
                                                     {"single", {special("a"), text, special("b")}},
                                                     {"pair", json::array()},
                                                     {"special_tokens", {{"a", ids("a", 0)}, {"b", ids("b", 1)}}}}));
  EXPECT_EQ(both->begin_tokens(), Ids{0});
}

TEST(Tokenizer, SpecialTokensInTextCanBeOrdinaryText) {
  const auto tokenizer = testing::load_fixture("smollm2");
  const TokenId end = *tokenizer->id_of("<|endoftext|>");
  EXPECT_EQ(tokenizer->encode("<|endoftext|>"), Ids{end});
  const Ids spelled = tokenizer->encode("<|endoftext|>", true, false);
  EXPECT_EQ(std::count(spelled.begin(), spelled.end(), end), 0);
  EXPECT_EQ(tokenizer->decode(spelled), "<|endoftext|>");
}

TEST(Tokenizer, TemplateIsOptional) {
  const auto tokenizer = testing::load_fixture("llama3");
  const Ids with = tokenizer->encode("hello");
  Ids without = tokenizer->encode("hello", false);
  without.insert(without.begin(), *tokenizer->id_of("<|begin_of_text|>"));
  EXPECT_EQ(with, without);
  EXPECT_EQ(tokenizer->encode(""), Ids{0});
  EXPECT_EQ(tokenizer->encode("", false), Ids{});
}

TEST(Tokenizer, BrokenUtf8IsReplacedAndOffsetsCountTheOriginal) {
  const auto tokenizer = testing::load_fixture("smollm2");
  // One U+FFFD for the cut-off character (2 bytes), one for each stray byte.
  const std::string broken = "a\xE6\x97x\xFF\x80";
  EXPECT_EQ(tokenizer->encode(broken), tokenizer->encode("a\xEF\xBF\xBDx\xEF\xBF\xBD\xEF\xBF\xBD"));
  const auto tokens = tokenizer->encode_with_offsets(broken);
  EXPECT_EQ(tokens.front(), (EncodedToken{*tokenizer->id_of("a"), 0, 1}));
  EXPECT_EQ(tokens[1].begin, 1);
  EXPECT_EQ(tokens[1].end, 3);
  EXPECT_EQ(tokens.back().begin, 5);
  EXPECT_EQ(tokens.back().end, 6);
}

TEST(Tokenizer, EmptyMatchesCutBetweenCharacters) {
  const json split = {{"type", "Split"}, {"pattern", {{"Regex", "z*"}}}, {"behavior", "Isolated"}, {"invert", false}};
  const std::vector<EncodedToken> expected{{0, 0, 1}, {1, 1, 2}, {0, 3, 4}, {1, 4, 5}};  // the package's answer
  EXPECT_EQ(load(changed("/pre_tokenizer", split))->encode_with_offsets("abzab"), expected);
}

TEST(Tokenizer, IsSharedByThreads) {
  const auto tokenizer = testing::load_fixture("qwen2");
  const auto texts = testing::fixture_texts();
  std::vector<Ids> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer->encode(text));
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < texts.size(); i += 2) wrong[t] += tokenizer->encode(texts[i]) == expected[i] ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, LongWordsTakeLinearithmicTime) {
  // Quadratic merging or splitting of such a text takes hours; the limit leaves room for sanitizers and busy machines.
  constexpr double kMaxCpuSeconds = 30;
  std::string text;
  while (text.size() < 1 << 20) text += "the quick brown fox";
  for (const char* style : {"llama2", "gpt2", "gemma"}) {
    const auto tokenizer = testing::load_fixture(style);
    const std::clock_t start = std::clock();
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids), text);
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, kMaxCpuSeconds) << style;
  }
}

TEST(TokenizerUnicode, NormalisesEveryCharacterLikeItself) {
  // Every table entry: full decomposition composes to the character, unless it is excluded from composition.
  std::size_t composing = 0;
  for (const Decomposition& entry : decompositions()) {
    std::string composed;
    append_utf8(composed, entry.composed);
    std::string parts;
    append_utf8(parts, entry.first);
    if (entry.second != 0) append_utf8(parts, entry.second);
    const auto text_of = [](const std::vector<NormalizedChar>& characters) {
      std::string text;
      for (const NormalizedChar& c : characters) append_utf8(text, c.code_point);
      return text;
    };
    EXPECT_EQ(text_of(nfc(composed)), text_of(nfc(parts)));
    EXPECT_EQ(text_of(nfc(composed)) == composed, entry.composes) << std::hex << static_cast<unsigned>(entry.composed);
    composing += entry.composes ? 1 : 0;
  }
  EXPECT_GT(composing, 900u);
}

TEST(TokenizerRefuses, DocumentsThatAreNotTokenizers) {
  expect_refused(std::string(), "valid JSON");
  expect_refused(std::string("{\"model\":"), "valid JSON");
  expect_refused(std::string("{\"a\": \"\xFF\"}"), "valid JSON");
  expect_refused(std::string("[1, 2]"), "JSON object");
  expect_refused(std::string("{}"), "model");
  expect_refused(std::string(100000, '[') + std::string(100000, ']'), "nested levels");
  EXPECT_THROW(Tokenizer::from_file("/nonexistent/tokenizer.json"), Error);
  EXPECT_THROW(Tokenizer::from_file(testing::fixture_folder()), Error);  // holds no tokenizer.json
  const std::filesystem::path folder = ::testing::TempDir() + "specmoe_damaged_tokenizer";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << "{\"model\": ";
  try {
    Tokenizer::from_file(folder);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find(folder.string() + ": tokenizer.json: expected valid JSON"), 0U);
  }
  std::filesystem::remove_all(folder);
}

TEST(TokenizerRefuses, UnknownComponentsByName) {
  expect_refused(changed("/model/type", "Unigram"), "Unigram");
  expect_refused(changed("/normalizer", {{"type", "NFKC"}}), "NFKC");
  expect_refused(changed("/pre_tokenizer", {{"type", "BertPreTokenizer"}}), "BertPreTokenizer");
  expect_refused(changed("/post_processor", {{"type", "RobertaProcessing"}}), "RobertaProcessing");
  expect_refused(changed("/decoder", {{"type", "WordPiece"}}), "WordPiece");
  expect_refused(changed("/decoder", 7), "decoder");
  const json nested = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
  expect_refused(changed("/normalizer", nested), "Lowercase");
  const json late = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}}}};
  expect_refused(changed("/decoder", late), "ByteFallback");
}

TEST(TokenizerRefuses, OptionsThatWouldChangeTheResult) {
  expect_refused(changed("/model/dropout", 0.1), "dropout");
  expect_refused(changed("/model/continuing_subword_prefix", "##"), "continuing_subword_prefix");
  expect_refused(changed("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
  expect_refused(changed("/model/new_option", true), "new_option");
  expect_refused(changed("/pre_tokenizer", {{"type", "Digits"}, {"individual_digits", true}, {"scripts", 1}}),
                 "scripts");
  expect_refused(changed("/pre_tokenizer", {{"type", "Digits"}}), "individual_digits");
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "sometimes"}};
  expect_refused(changed("/pre_tokenizer", metaspace), "sometimes");
  const json split = {{"type", "Split"}, {"pattern", {{"Regex", "a("}}}, {"behavior", "Isolated"}, {"invert", false}};
  expect_refused(changed("/pre_tokenizer", split), "a(");
  const json groups = {{"type", "Replace"}, {"pattern", {{"Regex", "(a)"}}}, {"content", "$1"}};
  expect_refused(changed("/normalizer", groups), "$1");
}

TEST(TokenizerRefuses, BadVocabularies) {
  expect_refused(changed("/model/vocab/a", -1), "model.vocab \"a\"");
  expect_refused(changed("/model/vocab/a", 1.5), "model.vocab \"a\"");
  expect_refused(changed("/model/vocab/a", 1), "id 1");
  expect_refused(changed("/model/vocab/a", 2147483647), "2147483647");
  expect_refused(changed("/model/vocab/a", 2000000000), "2000000000");
  expect_refused(changed("/model/vocab/a", 4294967296), "4294967296");
  expect_refused(changed("/model/vocab", json::array()), "vocab");
  expect_refused(changed("/model/merges", json::parse(R"([["a", "z"]])")), "\"z\"");
  expect_refused(changed("/model/merges", json::parse(R"([["b", "a"]])")), "\"ba\"");
  expect_refused(changed("/model/merges", json::parse(R"(["a  b"])")), "merge 0");
  expect_refused(changed("/model/merges", json::parse(R"([["a", "b", "c"]])")), "merge 0");
  expect_refused(changed("/added_tokens", {added(1, "<x>")}), "contradicts");
  expect_refused(changed("/added_tokens", {added(9, "ab")}), "contradicts");
  expect_refused(changed("/added_tokens", {added(9, "<x>"), added(9, "<y>")}), "listed twice");
  expect_refused(changed("/added_tokens", {added(9, "<x>"), added(8, "<x>")}), "listed twice");
  expect_refused(changed("/added_tokens", {added(9, "")}), "expected some text");
  expect_refused(changed("/added_tokens", {{{"id", 9}, {"content", "<x>"}}}), "single_word");
}

TEST(TokenizerRefuses, MissingUnknownTokenOnlyWhenItIsNeeded) {
  const auto tokenizer = load(changed("/model/unk_token", "<unk>"));
  EXPECT_EQ(tokenizer->encode("ab"), Ids{2});
  EXPECT_THROW(tokenizer->encode("z"), Error);
}

}  // namespace
}  // namespace specmoe::nn
