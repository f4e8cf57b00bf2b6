#pragma once

#include <optional>
#include <string>

#include "core/results.h"
#include "core/trace.h"
#include "python/bindings.h"

namespace specmoe::python {

/// What became of one prompt. Immutable once generate() has returned it, so arrays may look into it.
struct Result {
  RequestRecord record;
  std::optional<std::string> text;  // none without a tokenizer
  AnswerContext context;
};

}  // namespace specmoe::python
