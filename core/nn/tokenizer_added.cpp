#include "core/nn/tokenizer_added.h"

#include <algorithm>

#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

/// The last character of a text that is not empty.
std::string_view last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

/// Where the white space at the end of `text` begins.
std::size_t trailing_space(std::string_view text) {
  while (!text.empty() && is_white_space(utf8_step(last_character(text)).code_point)) {
    text.remove_suffix(last_character(text).size());
  }
  return text.size();
}

/// Bytes of white space at the start of `text`.
std::size_t leading_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Step step = utf8_step(text.substr(at));
    if (!is_white_space(step.code_point)) break;
    at += step.length;
  }
  return at;
}

AddedToken read_token(const nlohmann::json& value) {
  const JsonComponent component(value, "added_tokens");
  component.allow_only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedToken token;
  token.content = component.text("content");
  token.id = read_token_id(component.at("id"), "added_tokens " + in_quotes(token.content));
  token.single_word = component.flag("single_word");
  token.lstrip = component.flag("lstrip");
  token.rstrip = component.flag("rstrip");
  token.normalized = component.flag("normalized");
  token.special = component.flag("special");
  return token;
}

}  // namespace

void StringSet::add(std::string_view text, std::size_t value) {
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto [edge, added] = edges_.emplace(std::uint64_t{node} << 8 | static_cast<unsigned char>(c), nodes_);
    if (added) ++nodes_;
    node = edge->second;
  }
  starts_[static_cast<unsigned char>(text[0])] = true;
  values_.emplace(node, value);
}

std::optional<StringSet::Match> StringSet::longest_at(std::string_view text, std::size_t at) const {
  if (!starts_[static_cast<unsigned char>(text[at])]) return std::nullopt;
  std::optional<Match> longest;
  std::uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto edge = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (const auto value = values_.find(node); value != values_.end()) longest = Match{i + 1, value->second};
  }
  return longest;
}

AddedTokens::AddedTokens(const nlohmann::json& list, const Vocabulary& model, const Normalizers& normalizers)
    : word_character_(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200C\u200D])") {
  if (list.is_null()) return;
  SPECMOE_CHECK(list.is_array(), "tokenizer.json: added_tokens: expected a list, got ", list.type_name());
  for (const auto& value : list) add(read_token(value), model);
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    AddedToken& token = tokens_[i];
    AlignedText form = AlignedText::from_caller(token.content);
    if (token.normalized) {
      for (const auto& normalizer : normalizers) normalizer->apply(form);
    }
    SPECMOE_CHECK(!form.text.empty(), "tokenizer.json: added_tokens ", in_quotes(token.content),
                  ": expected some text, got nothing once it is normalised");
    token.form = std::move(form.text);
    (token.normalized ? normalized_ : raw_).add(token.form, i);
  }
}

void AddedTokens::add(AddedToken token, const Vocabulary& model) {
  const auto known = model.find(token.content);
  SPECMOE_CHECK(known ? *known == token.id : !model.has(token.id), "tokenizer.json: added_tokens ",
                in_quotes(token.content), ": id ", token.id, " contradicts model.vocab");
  const bool new_id = by_id_.emplace(token.id, tokens_.size()).second;
  const bool new_content = by_content_.emplace(token.content, tokens_.size()).second;
  SPECMOE_CHECK(new_id && new_content, "tokenizer.json: added_tokens ", in_quotes(token.content), ": ",
                new_id ? "the token" : "its id", " is listed twice");
  size_ = std::max(size_, token.id + 1);
  tokens_.push_back(std::move(token));
}

bool AddedTokens::stands_alone(std::string_view text, Span match) const {
  const bool word_before =
      match.begin > 0 && word_character_.matches_at_start(last_character(text.substr(0, match.begin)));
  return !word_before && !word_character_.matches_at_start(text.substr(match.end));
}

std::vector<Segment> AddedTokens::split(std::string_view text, Stage stage, bool match_special) const {
  const StringSet& members = stage == Stage::kRaw ? raw_ : normalized_;
  std::vector<Segment> segments;
  std::uint32_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto match = members.longest_at(text, at);
    if (!match) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match->value];
    Span span{static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(match->end)};
    at = match->end;  // a match that is turned down is passed over whole
    if ((token.special && !match_special) || (token.single_word && !stands_alone(text, span))) continue;
    if (token.lstrip) {
      const auto space = static_cast<std::uint32_t>(trailing_space(text.substr(0, span.begin)));
      span.begin = std::max(space, std::min(done, span.begin));
    }
    if (token.rstrip) span.end += static_cast<std::uint32_t>(leading_space(text.substr(span.end)));
    if (done < span.begin) segments.push_back({{done, span.begin}, nullptr});
    segments.push_back({span, &token});
    done = span.end;
  }
  if (done < text.size()) segments.push_back({{done, static_cast<std::uint32_t>(text.size())}, nullptr});
  return segments;
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace specmoe::nn
