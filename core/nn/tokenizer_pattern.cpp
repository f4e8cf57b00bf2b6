#include "core/nn/tokenizer_pattern.h"

#include <oniguruma.h>

#include <mutex>

#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

struct RegionFree {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};

/// Match positions, reused by every search of a thread.
OnigRegion* thread_region() {
  static thread_local const std::unique_ptr<OnigRegion, RegionFree> region(onig_region_new());
  return region.get();
}

const OnigUChar* bytes(const char* text) { return reinterpret_cast<const OnigUChar*>(text); }

std::string onig_text(int code, OnigErrorInfo* info) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length = onig_error_code_to_str(buffer, code, info);
  return std::string(reinterpret_cast<const char*>(buffer), length);
}

/// Start of the first match at or after `from`, or ONIG_MISMATCH; the match is region[0].
int search(OnigRegex compiled, std::string_view text, std::size_t from, OnigRegion* region) {
  const OnigUChar* begin = bytes(text.data());
  const OnigUChar* end = begin + text.size();
  const int found = onig_search(compiled, begin, end, begin + from, end, region, ONIG_OPTION_NONE);
  SPECMOE_CHECK(found >= 0 || found == ONIG_MISMATCH, "tokenizer: regular expression gave up on a piece of ",
                text.size(), " bytes: ", onig_text(found, nullptr));
  return found;
}

}  // namespace

void Regex::Free::operator()(re_pattern_buffer* compiled) const { onig_free(compiled); }

Regex::Regex(std::string_view expression) {
  static std::mutex mutex;  // Oniguruma's set-up and compiler share tables
  const std::lock_guard<std::mutex> lock(mutex);
  OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
  onig_initialize(encodings, 1);
  OnigRegex compiled = nullptr;
  OnigErrorInfo info;
  const OnigUChar* begin = bytes(expression.data());
  const int code = onig_new(&compiled, begin, begin + expression.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                            ONIG_SYNTAX_RUBY, &info);
  if (code != ONIG_NORMAL) {
    fail("tokenizer.json: regular expression ", in_quotes(expression), " does not compile: ", onig_text(code, &info));
  }
  compiled_.reset(compiled);
}

void Regex::find_all(std::string_view text, std::vector<Span>& matches) const {
  OnigRegion* region = thread_region();
  std::size_t from = 0;
  std::size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    if (search(compiled_.get(), text, from, region) == ONIG_MISMATCH) return;
    const Span match{static_cast<std::uint32_t>(region->beg[0]), static_cast<std::uint32_t>(region->end[0])};
    if (match.empty() && match.end == last_end) {  // an empty match where the last one ended: step over a character
      from += from < text.size() ? utf8_step(text.substr(from)).length : 1;
      continue;
    }
    from = last_end = match.end;
    matches.push_back(match);
  }
}

bool Regex::matches_at_start(std::string_view text) const {
  const OnigUChar* begin = bytes(text.data());
  return onig_match(compiled_.get(), begin, begin + text.size(), begin, nullptr, ONIG_OPTION_NONE) >= 0;
}

Pattern Pattern::literal(std::string text) {
  Pattern result;
  result.literal_ = std::move(text);
  return result;
}

Pattern Pattern::regex(std::string_view expression) {
  Pattern result;
  result.regex_ = std::make_shared<const Regex>(expression);
  return result;
}

Pattern Pattern::from_json(const nlohmann::json& value, std::string_view where) {
  const bool one_string = value.is_object() && value.size() == 1 && value.begin()->is_string();
  const std::string kind = one_string ? value.begin().key() : "";
  SPECMOE_CHECK(kind == "String" || kind == "Regex", "tokenizer.json: ", where,
                ": pattern: expected {\"String\": ...} or {\"Regex\": ...}, got ", in_quotes(value.dump()));
  const auto text = value.begin()->get<std::string>();
  SPECMOE_CHECK(!text.empty(), "tokenizer.json: ", where, ": pattern: expected some text, got an empty string");
  return kind == "String" ? literal(text) : regex(text);
}

void Pattern::find_all(std::string_view text, std::vector<Span>& matches) const {
  if (regex_) return regex_->find_all(text, matches);
  std::size_t at = text.find(literal_);
  while (at != std::string_view::npos) {
    const std::size_t end = at + literal_.size();
    matches.push_back({static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(end)});
    at = text.find(literal_, end);
  }
}

}  // namespace specmoe::nn
