#include "core/nn/tokenizer_pretokenize.h"

#include <string>
#include <utility>

#include "core/nn/tokenizer_byte_level.h"
#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_metaspace.h"
#include "core/nn/tokenizer_split.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

constexpr std::string_view kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Rebuilds the body piece by piece: rewrite(new body, piece) appends what the piece becomes.
template <class Rewrite>
void rewrite_pieces(Pieces& pieces, Rewrite rewrite) {
  AlignedText body;
  body.text.reserve(pieces.body.text.size());
  body.source.reserve(pieces.body.text.size());
  for (Span& piece : pieces.pieces) {
    const std::uint32_t begin = body.whole().end;
    rewrite(body, piece);
    piece = {begin, body.whole().end};
  }
  pieces.body = std::move(body);
}

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override { split_pieces(pieces, pattern_, behavior_, invert_); }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), words_(Pattern::regex(kGpt2Words)) {}

  void apply(Pieces& pieces) const override {
    if (add_prefix_space_) {
      rewrite_pieces(pieces, [&](AlignedText& body, Span piece) {
        if (pieces.body.text[piece.begin] != ' ') body.append(" ", pieces.body.source[piece.begin]);
        body.append_range(pieces.body, piece);
      });
    }
    if (use_regex_) split_pieces(pieces, words_, SplitBehavior::kIsolated);
    const auto& alphabet = byte_level_alphabet();
    rewrite_pieces(pieces, [&](AlignedText& body, Span piece) {
      for (std::uint32_t i = piece.begin; i < piece.end; ++i) {
        body.append(alphabet[static_cast<unsigned char>(pieces.body.text[i])], pieces.body.source[i]);
      }
    });
  }

 private:
  bool add_prefix_space_;
  bool use_regex_;
  Pattern words_;
};

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const JsonComponent& component)
      : options_(read_metaspace(component)), mark_(Pattern::literal(options_.replacement)) {}

  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, [&](AlignedText& body, Span piece) { mark_spaces(pieces.body, piece, body); });
    if (options_.split) split_pieces(pieces, mark_, SplitBehavior::kMergedWithNext);
  }

 private:
  void mark_spaces(const AlignedText& text, Span piece, AlignedText& body) const {
    const bool first = text.source[piece.begin].begin == 0;
    const bool wanted =
        options_.prepend == PrependScheme::kAlways || (options_.prepend == PrependScheme::kFirst && first);
    const std::string_view view = text.view(piece);
    if (wanted && view[0] != ' ' && !view.starts_with(options_.replacement)) {
      body.append(options_.replacement, text.source[piece.begin]);
    }
    for (std::uint32_t i = piece.begin; i < piece.end; ++i) {
      const bool space = text.text[i] == ' ';
      body.append(space ? std::string_view(options_.replacement) : text.view({i, i + 1}), text.source[i]);
    }
  }

  MetaspaceOptions options_;
  Pattern mark_;
};

std::unique_ptr<const PreTokenizer> read_byte_level(const JsonComponent& component) {
  component.allow_only({"add_prefix_space", "trim_offsets", "use_regex"});
  return std::make_unique<ByteLevel>(component.flag("add_prefix_space"), component.flag("use_regex", true));
}

std::unique_ptr<const PreTokenizer> read_digits(const JsonComponent& component) {
  component.allow_only({"individual_digits"});
  const bool one_by_one = component.flag("individual_digits");
  return std::make_unique<Split>(Pattern::regex(R"(\p{N})"),
                                 one_by_one ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false);
}

std::unique_ptr<const PreTokenizer> read_split(const JsonComponent& component) {
  component.allow_only({"pattern", "behavior", "invert"});
  return std::make_unique<Split>(Pattern::from_json(component.at("pattern"), "pre_tokenizer Split"),
                                 split_behavior_from_name(component.text("behavior")), component.flag("invert"));
}

void read_into(const nlohmann::json& value, PreTokenizers& result) {
  const JsonComponent component(value, "pre_tokenizer");
  const std::string& type = component.type();
  if (type == "Sequence") {
    component.allow_only({"pretokenizers"});
    for (const auto& item : component.array("pretokenizers")) read_into(item, result);
  } else if (type == "ByteLevel") {
    result.push_back(read_byte_level(component));
  } else if (type == "Digits") {
    result.push_back(read_digits(component));
  } else if (type == "Metaspace") {
    result.push_back(std::make_unique<Metaspace>(component));
  } else if (type == "Split") {
    result.push_back(read_split(component));
  } else {
    component.refuse_type("Sequence, ByteLevel, Digits, Metaspace, Split");
  }
}

}  // namespace

PreTokenizers read_pre_tokenizers(const nlohmann::json& value) {
  PreTokenizers result;
  if (!value.is_null()) read_into(value, result);
  return result;
}

}  // namespace specmoe::nn
