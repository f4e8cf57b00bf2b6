#include "core/nn/tokenizer_decode_stages.h"

#include <algorithm>
#include <optional>

#include "core/nn/tokenizer_byte_level.h"
#include "core/nn/tokenizer_utf8.h"

namespace specmoe::nn {
namespace {

class SpaceJoiner : public DecodeStage {
 public:
  void push(std::string_view piece, std::vector<std::string>& out) override {
    if (!first_) out.emplace_back(" ");
    out.emplace_back(piece);
    first_ = false;
  }
  std::string bytes(std::string_view token) const override { return std::string(" ").append(token); }
  std::unique_ptr<DecodeStage> fresh() const override { return make_space_joiner(); }

 private:
  bool first_ = true;
};

class ByteLevelStage : public DecodeStage {
 public:
  void push(std::string_view piece, std::vector<std::string>& out) override {
    held_ += bytes(piece);
    std::string text;
    std::string_view rest = held_;
    while (!rest.empty()) {
      const Utf8Step step = utf8_step(rest);
      if (step.kind == Utf8Kind::kIncomplete) break;
      text += step.kind == Utf8Kind::kCharacter ? rest.substr(0, step.length) : kReplacementCharacter;
      rest.remove_prefix(step.length);
    }
    held_.erase(0, held_.size() - rest.size());
    if (!text.empty()) out.push_back(std::move(text));
  }
  void finish(std::vector<std::string>& out) override {
    if (!held_.empty()) out.emplace_back(kReplacementCharacter);
    held_.clear();
  }
  /// A token with a character outside the byte-level alphabet (an added token) stands for its own text.
  std::string bytes(std::string_view token) const override {
    std::string bytes;
    bool spelled = true;
    for_each_character(token, [&](char32_t c, std::string_view) {
      const auto byte = byte_level_byte(c);
      spelled = spelled && byte.has_value();
      if (spelled) bytes += static_cast<char>(*byte);
    });
    return spelled ? bytes : std::string(token);
  }
  std::unique_ptr<DecodeStage> fresh() const override { return make_byte_level_stage(); }

 private:
  std::string held_;  // between pushes: an incomplete character
};

std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int byte = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    const char letter = static_cast<char>(c | 0x20);
    if (!digit && (letter < 'a' || letter > 'f')) return std::nullopt;
    byte = byte * 16 + (digit ? c - '0' : letter - 'a' + 10);
  }
  return static_cast<char>(byte);
}

class ByteFallbackStage : public DecodeStage {
 public:
  void push(std::string_view piece, std::vector<std::string>& out) override {
    if (const auto byte = fallback_byte(piece)) {
      run_ += *byte;
      return;
    }
    finish(out);
    out.emplace_back(piece);
  }
  void finish(std::vector<std::string>& out) override {
    if (run_.empty()) return;
    if (is_utf8(run_)) {
      out.push_back(run_);
    } else {
      out.insert(out.end(), run_.size(), std::string(kReplacementCharacter));
    }
    run_.clear();
  }
  std::string bytes(std::string_view token) const override {
    const auto byte = fallback_byte(token);
    return byte ? std::string(1, *byte) : std::string(token);
  }
  std::unique_ptr<DecodeStage> fresh() const override { return make_byte_fallback_stage(); }

 private:
  std::string run_;
};

class ReplaceStage : public DecodeStage {
 public:
  ReplaceStage(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void push(std::string_view piece, std::vector<std::string>& out) override {
    out.push_back(replaced(piece, matches_));
  }
  std::string bytes(std::string_view token) const override {
    std::vector<Span> matches;
    return is_utf8(token) ? replaced(token, matches) : std::string(token);
  }
  std::unique_ptr<DecodeStage> fresh() const override { return make_replace_stage(pattern_, content_); }

 private:
  std::string replaced(std::string_view piece, std::vector<Span>& matches) const {
    matches.clear();
    pattern_.find_all(piece, matches);
    std::string text;
    std::size_t done = 0;
    for (const Span match : matches) {
      text += piece.substr(done, match.begin - done);
      text += content_;
      done = match.end;
    }
    return text.append(piece.substr(done));
  }

  Pattern pattern_;
  std::string content_;
  std::vector<Span> matches_;
};

class MetaspaceStage : public DecodeStage {
 public:
  explicit MetaspaceStage(MetaspaceOptions options) : options_(std::move(options)) {}

  void push(std::string_view piece, std::vector<std::string>& out) override {
    const bool drop = first_ && options_.prepend != PrependScheme::kNever;
    first_ = false;
    out.push_back(spaced(piece, drop ? "" : " "));
  }
  std::string bytes(std::string_view token) const override { return spaced(token, " "); }
  std::unique_ptr<DecodeStage> fresh() const override { return make_metaspace_stage(options_); }

 private:
  std::string spaced(std::string_view piece, std::string_view for_mark) const {
    std::string text;
    for_each_character(piece, [&](char32_t, std::string_view character) {
      text += character == options_.replacement ? for_mark : character;
    });
    return text;
  }

  MetaspaceOptions options_;
  bool first_ = true;
};

class StripStage : public DecodeStage {
 public:
  StripStage(std::string character, std::size_t start, std::size_t stop, bool joined)
      : character_(std::move(character)), start_(start), stop_(stop), joined_(joined), to_cut_(start) {}

  void push(std::string_view piece, std::vector<std::string>& out) override {
    if (!joined_) to_cut_ = start_;
    for (; to_cut_ > 0 && piece.starts_with(character_); --to_cut_) piece.remove_prefix(character_.size());
    if (!piece.empty()) to_cut_ = 0;
    std::string text;
    for (; held_ > 0; --held_) text += character_;
    text += piece;
    for (; held_ < stop_ && text.ends_with(character_); ++held_) text.resize(text.size() - character_.size());
    if (!joined_) held_ = 0;
    out.push_back(std::move(text));
  }
  /// Inside a text that is joined there are no ends.
  std::string bytes(std::string_view token) const override {
    if (joined_) return std::string(token);
    for (std::size_t cut = start_; cut > 0 && token.starts_with(character_); --cut) {
      token.remove_prefix(character_.size());
    }
    for (std::size_t cut = stop_; cut > 0 && token.ends_with(character_); --cut) token.remove_suffix(character_.size());
    return std::string(token);
  }
  std::unique_ptr<DecodeStage> fresh() const override { return make_strip_stage(character_, start_, stop_, joined_); }

 private:
  std::string character_;
  std::size_t start_;
  std::size_t stop_;
  bool joined_;
  std::size_t to_cut_;
  std::size_t held_ = 0;  // trailing characters that go if the text ends here
};

}  // namespace

std::unique_ptr<DecodeStage> make_space_joiner() { return std::make_unique<SpaceJoiner>(); }

std::unique_ptr<DecodeStage> make_byte_level_stage() { return std::make_unique<ByteLevelStage>(); }

std::unique_ptr<DecodeStage> make_byte_fallback_stage() { return std::make_unique<ByteFallbackStage>(); }

std::unique_ptr<DecodeStage> make_replace_stage(Pattern pattern, std::string content) {
  return std::make_unique<ReplaceStage>(std::move(pattern), std::move(content));
}

std::unique_ptr<DecodeStage> make_metaspace_stage(MetaspaceOptions options) {
  return std::make_unique<MetaspaceStage>(std::move(options));
}

std::unique_ptr<DecodeStage> make_strip_stage(std::string character, std::size_t start, std::size_t stop, bool joined) {
  return std::make_unique<StripStage>(std::move(character), start, stop, joined);
}

}  // namespace specmoe::nn
