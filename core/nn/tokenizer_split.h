#pragma once

#include <string_view>

#include "core/nn/tokenizer_pattern.h"
#include "core/nn/tokenizer_text.h"

namespace specmoe::nn {

/// What becomes of the delimiters when "the-final--countdown" is split at "-":
///   kRemoved             the final countdown
///   kIsolated            the - final - - countdown
///   kMergedWithPrevious  the- final- - countdown
///   kMergedWithNext      the -final - -countdown
///   kContiguous          the - final -- countdown
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Throws Error naming the known behaviours.
SplitBehavior split_behavior_from_name(std::string_view name);

/// Splits every piece at the pattern's matches inside it (at what lies between them, with `invert`). Empty pieces go.
void split_pieces(Pieces& pieces, const Pattern& pattern, SplitBehavior behavior, bool invert = false);

}  // namespace specmoe::nn
