#pragma once

#include <memory>
#include <vector>

#include "core/logits_processor.h"
#include "python/bindings.h"

namespace specmoe::python {

/// The logits processors of one generate() call, null where a prompt has none.
///
/// given   None; a callable (prompt_ids, output_ids, logits), for all prompts; a sequence of these, one per prompt
/// throws  TypeError for anything else; Error when their number differs
std::vector<std::shared_ptr<LogitsProcessor>> read_logits_processors(py::handle given, std::size_t prompts);

}  // namespace specmoe::python
