#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace specmoe::nn {

/// One stage of decoding. Pieces flow through: whole tokens until a stage joins them, from there on fragments, cut
/// between characters, of one long token. A stage keeps back what later pieces can still change.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void push(std::string_view piece, std::vector<std::string>& out) = 0;
  virtual void finish(std::vector<std::string>&) {}
  /// What it makes of one whole token inside a text, as bytes: a part of a character stays what it is.
  virtual std::string bytes(std::string_view token) const = 0;
  /// The same stage as it was before its first piece.
  virtual std::unique_ptr<DecodeStage> fresh() const = 0;
};

/// The "decoder" of a tokenizer.json, as a pipeline that token strings are pushed through. Implemented: Sequence,
/// ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip; null joins tokens with spaces, as the reference does.
class DecodeChain {
 public:
  explicit DecodeChain(const nlohmann::json& value);
  explicit DecodeChain(std::vector<std::unique_ptr<DecodeStage>> stages) : stages_(std::move(stages)) {}

  std::unique_ptr<DecodeChain> fresh() const;

  /// Appends the text that has become certain.
  void push(std::string_view token, std::string& text);
  void finish(std::string& text);
  /// The bytes that a token adds inside a text.
  std::string bytes(std::string_view token) const;

 private:
  void read(const nlohmann::json& value);
  void run(std::size_t first_stage, std::string& text);

  std::vector<std::unique_ptr<DecodeStage>> stages_;
  bool joined_ = false;  // while reading: an earlier stage joins the tokens
  std::vector<std::string> pieces_;
  std::vector<std::string> next_;
};

}  // namespace specmoe::nn
