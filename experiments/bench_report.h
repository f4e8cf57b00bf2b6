#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "experiments/bench_run.h"

namespace specmoe::cli {

/// The texts of the first cell, draft tokens marked.
void print_texts(std::ostream& out, const RunOptions& options, const BenchCell& cell);

/// What was run, whether the outputs agree, and only then the speeds: one column per method for a single cell, one
/// line per cell for a grid. Each figure is defined once underneath.
void print_report(std::ostream& out, const RunOptions& options, const std::vector<BenchCell>& cells);

}  // namespace specmoe::cli
