#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "core/nn/tokenizer_text.h"

namespace specmoe::nn {

/// One cut of the text into words; some rewrite it as well.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

using PreTokenizers = std::vector<std::unique_ptr<const PreTokenizer>>;

/// The "pre_tokenizer" of a tokenizer.json, sequences flattened; none for null. Implemented: Sequence, ByteLevel,
/// Digits, Metaspace, Split.
PreTokenizers read_pre_tokenizers(const nlohmann::json& value);

}  // namespace specmoe::nn
