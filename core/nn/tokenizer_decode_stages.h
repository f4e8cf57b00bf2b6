#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/nn/tokenizer_decode.h"
#include "core/nn/tokenizer_metaspace.h"
#include "core/nn/tokenizer_pattern.h"

namespace specmoe::nn {

/// Token after token with a space between.
std::unique_ptr<DecodeStage> make_space_joiner();

/// Byte-level spelling to bytes, and bytes to text; broken UTF-8 becomes one U+FFFD per maximal part. Joins the tokens.
std::unique_ptr<DecodeStage> make_byte_level_stage();

/// Runs of tokens like <0x0A> to their bytes; a run that is not UTF-8 becomes one U+FFFD per byte.
std::unique_ptr<DecodeStage> make_byte_fallback_stage();

/// Replaces the pattern in each token.
std::unique_ptr<DecodeStage> make_replace_stage(Pattern pattern, std::string content);

/// Marks back to spaces; the first token loses its marks unless the scheme is kNever.
std::unique_ptr<DecodeStage> make_metaspace_stage(MetaspaceOptions options);

/// Cuts up to `start` and `stop` times `character` off the ends: of every token, or of the whole text once `joined`.
std::unique_ptr<DecodeStage> make_strip_stage(std::string character, std::size_t start, std::size_t stop, bool joined);

}  // namespace specmoe::nn
