#include "core/nn/gguf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;

namespace {

const char* const kModelKey = "tokenizer.ggml.model";
constexpr const char* kSpaceMark = "\u2581";

/// Kinds of token as the file numbers them.
enum class TokenKind { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// How llama.cpp's names of pre-tokenizers cut text into words, in the components of tokenizer.json.
struct WordCut {
  std::vector<const char*> names;
  std::vector<const char*> patterns;  // each isolated in turn; empty: the expression built into ByteLevel
  bool single_digits = false;
  bool nfc = false;
  bool whole_words = false;  // a word that is a token is not merged from parts
  bool begins = false;       // a begin token unless the file says otherwise
};

/// A word of cased letters, as DeepSeek's first tokenizers list them: an older Unicode's, and not those of all scripts.
constexpr const char* kCasedWord =
    R"(\s?[)"
    R"(A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af})"
    R"(\x{370}-\x{373}\x{376}-\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1})"
    R"(\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5})"
    R"(\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a})"
    R"(\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b})"
    R"(\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc})"
    R"(\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107})"
    R"(\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134})"
    R"(\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}-\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4})"
    R"(\x{2ceb}-\x{2cee}\x{2cf2}-\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787})"
    R"(\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a})"
    R"(\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2})"
    R"(\x{118a0}-\x{118df}\x{1e900}-\x{1e943})"
    R"(]+)";

const std::vector<WordCut>& word_cuts() {
  static const std::vector<WordCut> table = {
      {{"gpt-2", "phi-2", "mpt", "olmo"}, {}},
      {{"smollm", "starcoder", "refact", "command-r"}, {}, true},
      {{"llama-bpe", "llama3", "llama-v3"},
       {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
        R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       false,
       false,
       true,
       true},
      {{"qwen2", "deepseek-r1-qwen"},
       {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
        R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       false,
       true},
      {{"gpt-4o", "llama4"},
       {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
        R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
        R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {{"deepseek-llm"},
       {R"([\r\n])", kCasedWord, R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)",
        R"(\s+$)", R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)", R"(\p{N}+)"}},
      {{"deepseek-v3"},
       {R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
        R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
  };
  return table;
}

const WordCut& word_cut(const GgufFile& file) {
  const std::string_view* name = file.text("tokenizer.ggml.pre");
  SPECMOE_CHECK(name != nullptr, file.path(), ": metadata has no tokenizer.ggml.pre; convert the model with a current ",
                "version of its tool");
  std::string known;
  for (const WordCut& cut : word_cuts()) {
    for (const char* candidate : cut.names) {
      if (*name == candidate) return cut;
      known += (known.empty() ? "" : ", ") + std::string(candidate);
    }
  }
  fail(file.path(), ": tokenizer.ggml.pre ", in_quotes(*name), " is not supported; known: ", known);
}

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", use_regex}};
}

json sequence(const char* field, json components) { return {{"type", "Sequence"}, {field, std::move(components)}}; }

json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

/// The tokens of a file with their kinds, checked against each other.
struct Tokens {
  explicit Tokens(const GgufFile& file);

  TokenKind kind(std::size_t id) const { return static_cast<TokenKind>(kinds == nullptr ? 1 : (*kinds)[id]); }
  /// A token id of the metadata, -1 when it is absent.
  std::int64_t id(const char* key) const;

  const GgufFile& file;
  const std::vector<std::string_view>& texts;
  const std::vector<std::int64_t>* kinds;
};

const std::vector<std::string_view>& token_texts(const GgufFile& file) {
  const auto* texts = file.texts("tokenizer.ggml.tokens");
  SPECMOE_CHECK(texts != nullptr && !texts->empty(), file.path(), ": metadata has no tokenizer.ggml.tokens");
  return *texts;
}

Tokens::Tokens(const GgufFile& from)
    : file(from), texts(token_texts(from)), kinds(from.integers("tokenizer.ggml.token_type")) {
  SPECMOE_CHECK(texts.size() <= INT32_MAX, file.path(), ": tokenizer.ggml.tokens lists ", texts.size(), " tokens");
  SPECMOE_CHECK(kinds == nullptr || kinds->size() == texts.size(), file.path(), ": tokenizer.ggml.token_type lists ",
                kinds == nullptr ? 0 : kinds->size(), " tokens, tokenizer.ggml.tokens ", texts.size());
  for (const std::string_view text : texts) {
    SPECMOE_CHECK(is_utf8(text), file.path(), ": token ", in_quotes(text), " is not UTF-8");
  }
}

std::int64_t Tokens::id(const char* key) const {
  const std::int64_t* id = file.integer(key);
  if (id == nullptr) return -1;
  SPECMOE_CHECK(*id >= 0 && *id < static_cast<std::int64_t>(texts.size()), file.path(), ": ", key, " = ", *id,
                " is none of the ", texts.size(), " tokens");
  return *id;
}

json vocabulary(const Tokens& tokens) {
  json::object_t table;
  for (std::size_t id = 0; id < tokens.texts.size(); ++id) {
    const bool is_new = table.emplace(tokens.texts[id], id).second;
    SPECMOE_CHECK(is_new, tokens.file.path(), ": token ", in_quotes(tokens.texts[id]), " is there twice");
  }
  return table;
}

json added_tokens(const Tokens& tokens) {
  json list = json::array();
  for (std::size_t id = 0; id < tokens.texts.size(); ++id) {
    const TokenKind kind = tokens.kind(id);
    const bool special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
    if ((!special && kind != TokenKind::kUserDefined) || tokens.texts[id].empty()) continue;
    list.push_back({{"id", id},
                    {"content", tokens.texts[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", special}});
  }
  return list;
}

/// What surrounds a text: the begin and end tokens that the file asks for.
json frame(const Tokens& tokens, bool begins_by_default) {
  const bool* begins = tokens.file.boolean("tokenizer.ggml.add_bos_token");
  const bool* ends = tokens.file.boolean("tokenizer.ggml.add_eos_token");
  json single = json::array();
  json table = json::object();
  const auto add = [&](bool wanted, const char* key) {
    const std::int64_t id = wanted ? tokens.id(key) : -1;
    if (id < 0) return;
    const std::string_view text = tokens.texts[static_cast<std::size_t>(id)];
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    table[std::string(text)] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  };
  add(begins != nullptr ? *begins : begins_by_default, "tokenizer.ggml.bos_token_id");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(ends != nullptr && *ends, "tokenizer.ggml.eos_token_id");
  if (table.empty()) return nullptr;
  json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", table}};
}

json byte_level_bpe(const Tokens& tokens) {
  const WordCut& cut = word_cut(tokens.file);
  const auto* merges = tokens.file.texts("tokenizer.ggml.merges");
  SPECMOE_CHECK(merges != nullptr, tokens.file.path(), ": metadata has no tokenizer.ggml.merges");
  for (const std::string_view merge : *merges) {
    SPECMOE_CHECK(is_utf8(merge), tokens.file.path(), ": merge ", in_quotes(merge), " is not UTF-8");
  }
  json words = json::array();
  if (cut.single_digits) words.push_back({{"type", "Digits"}, {"individual_digits", true}});
  for (const char* pattern : cut.patterns) {
    words.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  words.push_back(byte_level(cut.patterns.empty()));
  return {{"normalizer", cut.nfc ? json{{"type", "NFC"}} : json()},
          {"pre_tokenizer", sequence("pretokenizers", words)},
          {"post_processor", frame(tokens, cut.begins)},
          {"decoder", byte_level(true)},
          {"model",
           {{"type", "BPE"}, {"ignore_merges", cut.whole_words}, {"vocab", vocabulary(tokens)}, {"merges", *merges}}}};
}

/// A way to make one token of two.
struct ScoredMerge {
  double score = 0;  // of the token that is made
  double left_score = 0;
  double right_score = 0;
  std::string_view left, right;
};

/// SentencePiece lists no merges: the best-scored token that two neighbours make is made first. Ties as transformers
/// breaks them: by id of the token made, then by the better-scored parts.
json merges_by_score(const Tokens& tokens) {
  const auto* scores = tokens.file.numbers("tokenizer.ggml.scores");
  SPECMOE_CHECK(scores != nullptr && scores->size() == tokens.texts.size(), tokens.file.path(),
                ": tokenizer.ggml.scores must list a score for each of the ", tokens.texts.size(), " tokens");
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t id = 0; id < tokens.texts.size(); ++id) {
    SPECMOE_CHECK((*scores)[id] == (*scores)[id], tokens.file.path(), ": token ", id, " has no score (NaN)");
    const TokenKind kind = tokens.kind(id);
    if (kind == TokenKind::kNormal || kind == TokenKind::kUserDefined) ids.emplace(tokens.texts[id], id);
  }
  std::vector<ScoredMerge> merges;
  for (std::size_t id = 0; id < tokens.texts.size(); ++id) {
    const std::string_view text = tokens.texts[id];
    constexpr std::size_t kMostBytes = 512;  // longer tokens would make this quadratic
    if (!ids.contains(text) || text.size() > kMostBytes) continue;
    const std::size_t first = merges.size();
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut));
      const auto right = ids.find(text.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({(*scores)[id], (*scores)[left->second], (*scores)[right->second], left->first, right->first});
    }
    std::stable_sort(merges.begin() + static_cast<std::ptrdiff_t>(first), merges.end(),
                     [](const ScoredMerge& a, const ScoredMerge& b) {
                       return std::pair(a.left_score, a.right_score) > std::pair(b.left_score, b.right_score);
                     });
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const ScoredMerge& a, const ScoredMerge& b) { return a.score > b.score; });
  json list = json::array();
  for (const ScoredMerge& merge : merges) list.push_back({merge.left, merge.right});
  return list;
}

json sentencepiece_bpe(const Tokens& tokens) {
  const bool* prefix = tokens.file.boolean("tokenizer.ggml.add_space_prefix");
  const bool prefixed = prefix == nullptr || *prefix;
  const json mark_spaces = replace(" ", kSpaceMark);
  json normalizers = json::array();
  if (prefixed) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  normalizers.push_back(mark_spaces);
  json decoders = {replace(kSpaceMark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefixed) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const std::int64_t unknown = tokens.id("tokenizer.ggml.unknown_token_id");
  return {{"normalizer", sequence("normalizers", normalizers)},
          {"pre_tokenizer", nullptr},
          {"post_processor", frame(tokens, true)},
          {"decoder", sequence("decoders", decoders)},
          {"model",
           {{"type", "BPE"},
            {"unk_token", unknown < 0 ? json() : json(tokens.texts[static_cast<std::size_t>(unknown)])},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocabulary(tokens)},
            {"merges", merges_by_score(tokens)}}}};
}

}  // namespace

bool has_tokenizer(const GgufFile& file) {
  const std::string_view* model = file.text(kModelKey);
  return model != nullptr && *model != "no_vocab" && *model != "none";
}

json gguf_tokenizer(const GgufFile& file) {
  SPECMOE_CHECK(has_tokenizer(file), file.path(), ": holds no tokenizer");
  const std::string_view model = *file.text(kModelKey);
  SPECMOE_CHECK(model == "gpt2" || model == "llama", file.path(), ": ", kModelKey, " ", in_quotes(model),
                " is not supported; known: gpt2, llama");
  const Tokens tokens(file);
  json document = model == "gpt2" ? byte_level_bpe(tokens) : sentencepiece_bpe(tokens);
  document["version"] = "1.0";
  document["added_tokens"] = added_tokens(tokens);
  return document;
}

}  // namespace specmoe::nn
