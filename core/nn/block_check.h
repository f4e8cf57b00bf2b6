#pragma once

#include <cstddef>
#include <span>

#include "core/language_model.h"

namespace specmoe::nn {

/// What every model asks of block b of a pass, whose cache is its own: a cache for this block alone with room for it, a
/// token of the vocabulary and a parent for each row. Throws Error.
void check_block(std::span<const RowBlock> blocks, std::size_t b, int vocab_size);

}  // namespace specmoe::nn
