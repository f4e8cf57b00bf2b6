#pragma once

#include <string>

#include "core/nn/tokenizer_json.h"

namespace specmoe::nn {

/// Where Metaspace puts a mark in front: every piece, the piece at the start of the text, or none.
enum class PrependScheme { kAlways, kFirst, kNever };

struct MetaspaceOptions {
  std::string replacement;  // the mark that stands for a space, usually U+2581
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;
};

/// Options of a Metaspace pre-tokenizer or decoder, the older spelling (add_prefix_space) included.
MetaspaceOptions read_metaspace(const JsonComponent& component);

}  // namespace specmoe::nn
