#pragma once

#include <string>

#include "core/provenance.h"
#include "experiments/bench_run.h"

namespace specmoe::cli {

/// A cell as one line of a result file.
std::string line_of(const BenchCell& cell, const Provenance& provenance, const std::string& config_json);

/// What line_of() wrote, read back; texts are not in it. Throws Error naming what is missing.
BenchCell cell_from_line(const std::string& line);

}  // namespace specmoe::cli
