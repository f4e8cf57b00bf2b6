#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/types.h"

namespace specmoe::nn {

class DecodeChain;

/// One token of an encoded text and the bytes [begin, end) of that text it stands for. A token that cannot stand for
/// part of a character gives the whole character; one that the template adds has begin = end = 0.
struct EncodedToken {
  TokenId id = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;

  bool operator==(const EncodedToken&) const = default;
};

/// Text to token ids and back: what a tokenizer.json says, nothing hard-coded. Immutable, so one object serves any
/// number of threads.
///
/// The components of byte-level and byte-fallback BPE are implemented (Llama, Mixtral, Qwen, SmolLM2, Gemma, GPT and
/// kin); any other component, and any option that would change the result, is refused by name when the file is read.
/// The file's truncation and padding are batching settings and are ignored, as transformers does.
/// source   behaviour measured against the `tokenizers` package 0.23
class Tokenizer {
 public:
  /// path     a tokenizer.json, a GGUF file, or a folder that holds one of them
  /// throws   Error when the file is missing, malformed or asks for what is not implemented
  static std::shared_ptr<const Tokenizer> from_file(const std::filesystem::path& path);
  /// The tokenizer of a model's folder or GGUF file; null when there is none.
  static std::shared_ptr<const Tokenizer> find(const std::filesystem::path& model);
  static std::shared_ptr<const Tokenizer> from_json(std::string_view document);

  ~Tokenizer();

  /// text           broken UTF-8 is read like Python's errors="replace": one U+FFFD per maximal broken part
  /// add_special    also add what the template adds (a begin token, say)
  /// match_special  special tokens spelled out in the text become those tokens; false: they are ordinary text
  std::vector<TokenId> encode(std::string_view text, bool add_special = true, bool match_special = true) const;
  std::vector<EncodedToken> encode_with_offsets(std::string_view text, bool add_special = true,
                                                bool match_special = true) const;

  /// Always valid UTF-8. Ids without a token (the padding rows of a model's vocabulary) give nothing.
  std::string decode(std::span<const TokenId> ids, bool skip_special = true) const;

  /// One more than the largest id, added tokens included; ids between may be unused.
  int vocab_size() const;
  /// The token as the file spells it (a space may be "Ġ" or "▁"); empty for an id without a token.
  std::string token_text(TokenId id) const;
  /// The bytes it adds to a text that goes on before it, perhaps a part of a character; empty for an id without a
  /// token. They tell tokens of different vocabularies alike.
  std::string token_bytes(TokenId id) const;
  bool is_special(TokenId id) const;
  std::optional<TokenId> id_of(std::string_view token) const;
  /// What the template puts before a text: a begin token, or nothing.
  std::vector<TokenId> begin_tokens() const;

 private:
  friend class StreamDecoder;
  struct Parts;

  explicit Tokenizer(std::unique_ptr<const Parts> parts);

  std::unique_ptr<const Parts> parts_;
};

/// The tokenizer.json of a path as Tokenizer::from_file takes it; of a GGUF file, what its metadata come to.
std::string tokenizer_document(const std::filesystem::path& path);

/// Decodes token by token. What push() returned so far is always whole characters and a prefix of what decode() of all
/// the ids gives; finish() returns the rest and makes the decoder ready for another text.
///
/// Text is held back only while later tokens can still change it: an incomplete character, or, in a byte-fallback
/// vocabulary, a run of byte tokens (if the run turns out broken, all of it decodes to U+FFFD).
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  std::string push(TokenId id);
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::unique_ptr<DecodeChain> chain_;
};

}  // namespace specmoe::nn
