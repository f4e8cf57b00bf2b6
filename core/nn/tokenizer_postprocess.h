#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "core/nn/tokenizer.h"
#include "core/types.h"

namespace specmoe::nn {

/// The "post_processor" of a tokenizer.json: the template for one text, and offsets that leave out white space.
/// Implemented: Sequence, ByteLevel, TemplateProcessing (one at most). The template for pairs is not used.
class PostProcessor {
 public:
  explicit PostProcessor(const nlohmann::json& value);

  /// Takes white space at both ends of a byte-level token out of its offsets, if the file asks for it.
  /// text      the token as spelled in the vocabulary, or as cut out of the normalised text
  /// original  the caller's text, which the offsets count
  void trim_offsets(EncodedToken& token, std::string_view text, bool first, std::string_view original) const;

  /// Wraps the tokens of a text in the template's own.
  std::vector<EncodedToken> wrap(std::vector<EncodedToken> tokens) const;
  /// The template's own tokens before the text.
  std::vector<TokenId> before_text() const;

 private:
  void read(const nlohmann::json& value);
  void read_template(const class JsonComponent& component);

  static constexpr TokenId kText = -1;  // where the text goes

  bool trim_offsets_ = false;
  bool add_prefix_space_ = false;
  std::vector<TokenId> template_{kText};
};

}  // namespace specmoe::nn
