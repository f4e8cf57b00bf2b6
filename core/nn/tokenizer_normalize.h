#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "core/nn/tokenizer_text.h"

namespace specmoe::nn {

/// One rewriting of the text before it is cut into words.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(AlignedText& text) const = 0;
};

using Normalizers = std::vector<std::unique_ptr<const Normalizer>>;

/// The "normalizer" of a tokenizer.json, sequences flattened; none for null. Implemented: Sequence, Prepend, Replace,
/// NFC.
Normalizers read_normalizers(const nlohmann::json& value);

}  // namespace specmoe::nn
