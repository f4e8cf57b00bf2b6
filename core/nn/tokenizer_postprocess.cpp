#include "core/nn/tokenizer_postprocess.h"

#include <algorithm>

#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

constexpr char32_t kByteLevelSpace = 0x120;  // "Ġ"

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

struct WhiteSpace {
  int leading = 0;   // characters
  int trailing = 0;  // characters; equals leading when there is nothing else
};

WhiteSpace count_white_space(std::string_view text) {
  WhiteSpace result;
  bool only_space = true;
  for_each_character(text, [&](char32_t c, std::string_view) {
    const bool space = c == kByteLevelSpace || is_white_space(c);
    only_space = only_space && space;
    result.leading += only_space ? 1 : 0;
    result.trailing = space ? result.trailing + 1 : 0;
  });
  return result;
}

}  // namespace

PostProcessor::PostProcessor(const nlohmann::json& value) {
  if (!value.is_null()) read(value);
}

void PostProcessor::read(const nlohmann::json& value) {
  const JsonComponent component(value, "post_processor");
  if (component.type() == "Sequence") {
    component.allow_only({"processors"});
    for (const auto& item : component.array("processors")) read(item);
  } else if (component.type() == "ByteLevel") {
    component.allow_only({"add_prefix_space", "trim_offsets", "use_regex"});
    trim_offsets_ = component.flag("trim_offsets");
    add_prefix_space_ = component.flag("add_prefix_space");
  } else if (component.type() == "TemplateProcessing") {
    component.allow_only({"single", "pair", "special_tokens"});
    read_template(component);
  } else {
    component.refuse_type("Sequence, ByteLevel, TemplateProcessing");
  }
}

void PostProcessor::read_template(const JsonComponent& component) {
  SPECMOE_CHECK(template_ == std::vector{kText},
                "tokenizer.json: post_processor: more than one TemplateProcessing is not implemented");
  template_.clear();
  const auto& specials = component.object("special_tokens");
  for (const auto& item : component.array("single")) {
    const JsonComponent piece(item, "post_processor TemplateProcessing.single");
    if (piece.has("Sequence")) {
      const JsonComponent sequence(piece.at("Sequence"), "post_processor TemplateProcessing.single.Sequence");
      SPECMOE_CHECK(sequence.text("id") == "A", "tokenizer.json: post_processor: the template for one text asks for ",
                    in_quotes(sequence.text("id")), "; expected only A");
      template_.push_back(kText);
      continue;
    }
    const JsonComponent special(piece.at("SpecialToken"), "post_processor TemplateProcessing.single.SpecialToken");
    const std::string name = special.text("id");
    const auto found = specials.find(name);
    SPECMOE_CHECK(found != specials.end(), "tokenizer.json: post_processor: special_tokens lacks ", in_quotes(name));
    const JsonComponent ids(*found, "post_processor TemplateProcessing.special_tokens");
    for (const auto& id : ids.array("ids")) template_.push_back(read_token_id(id, "post_processor " + in_quotes(name)));
  }
}

void PostProcessor::trim_offsets(EncodedToken& token, std::string_view text, bool first,
                                 std::string_view original) const {
  if (!trim_offsets_) return;
  WhiteSpace space = count_white_space(text);
  if (add_prefix_space_ && (first || token.begin == 0) && space.leading == 1) space.leading = 0;
  for (; space.leading > 0 && token.begin < token.end; --space.leading) {
    do {
      ++token.begin;
    } while (token.begin < token.end && is_continuation(original[token.begin]));
  }
  for (; space.trailing > 0 && token.end > token.begin; --space.trailing) {
    do {
      --token.end;
    } while (token.end > token.begin && is_continuation(original[token.end]));
  }
}

std::vector<EncodedToken> PostProcessor::wrap(std::vector<EncodedToken> tokens) const {
  if (template_ == std::vector{kText}) return tokens;
  std::vector<EncodedToken> result;
  result.reserve(tokens.size() + template_.size());
  for (const TokenId id : template_) {
    if (id == kText) {
      result.insert(result.end(), tokens.begin(), tokens.end());
    } else {
      result.push_back({id, 0, 0});
    }
  }
  return result;
}

std::vector<TokenId> PostProcessor::before_text() const {
  return {template_.begin(), std::find(template_.begin(), template_.end(), kText)};
}

}  // namespace specmoe::nn
