#pragma once

#include <string>
#include <vector>

#include "python/bindings.h"

namespace specmoe::python {

/// The prompts of one generate() call as token ids.
struct Prompts {
  std::vector<std::vector<TokenId>> ids;
  bool single = false;  // one prompt was given, not a list of them
};

/// given      str; list of str; token ids (a list, or a 1-D array or tensor); a list of those; an integer array [B, S]
/// tokenizer  may be null: then prompts must be token ids
/// throws     TypeError for anything else; Error for text without a tokenizer
Prompts read_prompts(py::handle given, const nn::Tokenizer* tokenizer);

/// Strings at which texts end: None, a str or several. throws TypeError for anything else.
std::vector<std::string> read_stops(py::handle given);

/// One seed for all prompts, or one for each. throws Error when their number differs.
std::vector<std::uint64_t> read_seeds(py::handle given, std::size_t prompts);

}  // namespace specmoe::python
