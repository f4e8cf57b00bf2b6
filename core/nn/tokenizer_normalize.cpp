#include "core/nn/tokenizer_normalize.h"

#include <string>

#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_pattern.h"
#include "core/nn/tokenizer_unicode.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}

  void apply(AlignedText& text) const override {
    if (text.text.empty()) return;
    AlignedText result;
    result.append(prefix_, text.source.front());
    result.append_range(text, text.whole());
    text = std::move(result);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void apply(AlignedText& text) const override {
    std::vector<Span> matches;
    pattern_.find_all(text.text, matches);
    if (matches.empty()) return;
    AlignedText result;
    std::uint32_t done = 0;
    for (const Span match : matches) {
      result.append_range(text, {done, match.begin});
      // New text belongs to the last character it replaces.
      result.append(content_, match.end == 0 ? Span{} : text.source[match.end - 1]);
      done = match.end;
    }
    result.append_range(text, {done, text.whole().end});
    text = std::move(result);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class NormalizationFormC : public Normalizer {
 public:
  void apply(AlignedText& text) const override {
    if (surely_nfc(text.text)) return;
    AlignedText result;
    result.text.reserve(text.text.size());
    result.source.reserve(text.text.size());
    std::uint32_t at = 0;  // byte of the old text that comes next
    std::string bytes;
    for (const NormalizedChar& c : nfc(text.text)) {
      const std::uint32_t origin = c.change > 0 && at > 0 ? at - 1 : at;
      bytes.clear();
      append_utf8(bytes, c.code_point);
      result.append(bytes, text.source[origin]);
      for (int passed = c.change; passed <= 0; ++passed) at += utf8_step(std::string_view(text.text).substr(at)).length;
    }
    text = std::move(result);
  }
};

void read_into(const nlohmann::json& value, Normalizers& result) {
  const JsonComponent component(value, "normalizer");
  if (component.type() == "Sequence") {
    component.allow_only({"normalizers"});
    for (const auto& item : component.array("normalizers")) read_into(item, result);
  } else if (component.type() == "Prepend") {
    component.allow_only({"prepend"});
    result.push_back(std::make_unique<Prepend>(component.text("prepend")));
  } else if (component.type() == "Replace") {
    component.allow_only({"pattern", "content"});
    Pattern pattern = Pattern::from_json(component.at("pattern"), "normalizer Replace");
    std::string content = component.text("content");
    SPECMOE_CHECK(!pattern.is_regex() || content.find('$') == std::string::npos,
                  "tokenizer.json: normalizer Replace: group references ($1) in \"content\" are not implemented");
    result.push_back(std::make_unique<Replace>(std::move(pattern), std::move(content)));
  } else if (component.type() == "NFC") {
    component.allow_only({});
    result.push_back(std::make_unique<NormalizationFormC>());
  } else {
    component.refuse_type("Sequence, Prepend, Replace, NFC");
  }
}

}  // namespace

Normalizers read_normalizers(const nlohmann::json& value) {
  Normalizers result;
  if (!value.is_null()) read_into(value, result);
  return result;
}

}  // namespace specmoe::nn
