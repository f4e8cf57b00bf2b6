#include "core/nn/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "core/nn/gguf_model.h"
#include "core/nn/gguf_tokenizer.h"
#include "core/nn/tokenizer_added.h"
#include "core/nn/tokenizer_bpe.h"
#include "core/nn/tokenizer_decode.h"
#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_normalize.h"
#include "core/nn/tokenizer_postprocess.h"
#include "core/nn/tokenizer_pretokenize.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

const nlohmann::json& field_or_null(const nlohmann::json& root, const char* name) {
  static const nlohmann::json null;
  const auto found = root.find(name);
  return found == root.end() ? null : *found;
}

}  // namespace

struct Tokenizer::Parts {
  explicit Parts(const nlohmann::json& root)
      : normalizers(read_normalizers(field_or_null(root, "normalizer"))),
        pre_tokenizers(read_pre_tokenizers(field_or_null(root, "pre_tokenizer"))),
        model(field_or_null(root, "model")),
        added(field_or_null(root, "added_tokens"), model.vocabulary(), normalizers),
        post_processor(field_or_null(root, "post_processor")),
        decoder(field_or_null(root, "decoder")) {}

  /// One call of encode.
  struct Encoding {
    std::string_view original;
    bool match_special = true;
    BpeScratch scratch;
    std::vector<EncodedToken> tokens;
  };

  void encode(AlignedText text, Encoding& encoding) const;
  void encode_segment(AlignedText text, Encoding& encoding) const;
  void encode_words(AlignedText text, Encoding& encoding) const;
  void emit(Encoding& encoding, TokenId id, Span source, std::string_view text) const;
  /// What the decoder gets for an id; null for one without a token and for a special token that is skipped.
  const std::string* decodable(TokenId id, bool skip_special) const;

  Normalizers normalizers;
  PreTokenizers pre_tokenizers;
  BpeModel model;
  AddedTokens added;
  PostProcessor post_processor;
  DecodeChain decoder;
};

void Tokenizer::Parts::emit(Encoding& encoding, TokenId id, Span source, std::string_view text) const {
  EncodedToken token{id, source.begin, source.end};
  post_processor.trim_offsets(token, text, encoding.tokens.empty(), encoding.original);
  encoding.tokens.push_back(token);
}

void Tokenizer::Parts::encode(AlignedText text, Encoding& encoding) const {
  for (const Segment& segment : added.split(text.text, AddedTokens::Stage::kRaw, encoding.match_special)) {
    if (segment.token != nullptr) {
      emit(encoding, segment.token->id, text.source_of(segment.span), text.view(segment.span));
    } else {
      encode_segment(text.slice(segment.span), encoding);
    }
  }
}

void Tokenizer::Parts::encode_segment(AlignedText text, Encoding& encoding) const {
  for (const auto& normalizer : normalizers) normalizer->apply(text);
  for (const Segment& segment : added.split(text.text, AddedTokens::Stage::kNormalized, encoding.match_special)) {
    if (segment.token != nullptr) {
      emit(encoding, segment.token->id, text.source_of(segment.span), text.view(segment.span));
    } else {
      encode_words(text.slice(segment.span), encoding);
    }
  }
}

void Tokenizer::Parts::encode_words(AlignedText text, Encoding& encoding) const {
  const Span whole = text.whole();
  Pieces pieces{std::move(text), {whole}};
  for (const auto& pre_tokenizer : pre_tokenizers) pre_tokenizer->apply(pieces);
  for (const Span word : pieces.pieces) {
    model.encode_word(pieces.body.view(word), encoding.scratch);
    std::uint32_t at = word.begin;
    for (const BpeSymbol& symbol : encoding.scratch.symbols) {
      if (symbol.bytes == 0) continue;
      const Span span{at, at + symbol.bytes};
      emit(encoding, symbol.id, pieces.body.source_of(span), *model.vocabulary().text(symbol.id));
      at = span.end;
    }
  }
}

const std::string* Tokenizer::Parts::decodable(TokenId id, bool skip_special) const {
  const AddedToken* token = added.find(id);
  if (token == nullptr) return model.vocabulary().text(id);
  return token->special && skip_special ? nullptr : &token->form;
}

std::string tokenizer_document(const std::filesystem::path& path) {
  if (const auto gguf = find_gguf(path)) return gguf_tokenizer(GgufFile(*gguf)).dump();
  constexpr std::uintmax_t kMaxBytes = 512u << 20;
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  const std::filesystem::path file = folder ? path / "tokenizer.json" : path;
  const std::uintmax_t size = std::filesystem::file_size(file, error);
  SPECMOE_CHECK(!error, "tokenizer: cannot read ", file.string(), ": ", error.message(),
                "; expected a tokenizer.json, a GGUF file or a folder that holds one");
  SPECMOE_CHECK(size <= kMaxBytes, "tokenizer: ", file.string(), ": expected at most ", kMaxBytes, " bytes, got ",
                size);
  std::string document(size, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(document.data(), static_cast<std::streamsize>(size));
  SPECMOE_CHECK(stream.good() || size == 0, "tokenizer: cannot read ", file.string());
  return document;
}

std::shared_ptr<const Tokenizer> Tokenizer::from_file(const std::filesystem::path& path) {
  const std::string document = tokenizer_document(path);
  try {
    return from_json(document);
  } catch (const Error& error) {
    fail(path.string(), ": ", error.what());
  }
}

std::shared_ptr<const Tokenizer> Tokenizer::find(const std::filesystem::path& model) {
  const auto gguf = find_gguf(model);
  const bool found = gguf ? has_tokenizer(GgufFile(*gguf)) : std::filesystem::exists(model / "tokenizer.json");
  return found ? from_file(model) : nullptr;
}

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view document) {
  const nlohmann::json root = parse_tokenizer_json(document);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<const Parts>(root)));
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::vector<EncodedToken> Tokenizer::encode_with_offsets(std::string_view text, bool add_special,
                                                         bool match_special) const {
  Parts::Encoding encoding{text, match_special, {}, {}};
  parts_->encode(AlignedText::from_caller(text), encoding);
  return add_special ? parts_->post_processor.wrap(std::move(encoding.tokens)) : std::move(encoding.tokens);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special, bool match_special) const {
  const std::vector<EncodedToken> tokens = encode_with_offsets(text, add_special, match_special);
  std::vector<TokenId> ids(tokens.size());
  std::transform(tokens.begin(), tokens.end(), ids.begin(), [](const EncodedToken& token) { return token.id; });
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  const auto chain = parts_->decoder.fresh();
  std::string text;
  for (const TokenId id : ids) {
    if (const std::string* token = parts_->decodable(id, skip_special)) chain->push(*token, text);
  }
  chain->finish(text);
  return text;
}

int Tokenizer::vocab_size() const { return std::max(parts_->model.vocabulary().size(), parts_->added.size()); }

std::string Tokenizer::token_text(TokenId id) const {
  if (const AddedToken* token = parts_->added.find(id)) return token->content;
  const std::string* text = parts_->model.vocabulary().text(id);
  return text != nullptr ? *text : std::string();
}

std::string Tokenizer::token_bytes(TokenId id) const {
  const std::string* token = parts_->decodable(id, /*skip_special=*/false);
  return token != nullptr ? parts_->decoder.bytes(*token) : std::string();
}

bool Tokenizer::is_special(TokenId id) const {
  const AddedToken* token = parts_->added.find(id);
  return token != nullptr && token->special;
}

std::optional<TokenId> Tokenizer::id_of(std::string_view token) const {
  const AddedToken* added = parts_->added.find(token);
  return added != nullptr ? std::optional(added->id) : parts_->model.vocabulary().find(token);
}

std::vector<TokenId> Tokenizer::begin_tokens() const { return parts_->post_processor.before_text(); }

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special), chain_(tokenizer_->parts_->decoder.fresh()) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(TokenId id) {
  std::string text;
  if (const std::string* token = tokenizer_->parts_->decodable(id, skip_special_)) chain_->push(*token, text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  chain_->finish(text);
  chain_ = tokenizer_->parts_->decoder.fresh();
  return text;
}

}  // namespace specmoe::nn
