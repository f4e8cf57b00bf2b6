#pragma once

#include <vector>

#include "experiments/bench_run.h"
#include "experiments/settings.h"

namespace specmoe::cli {

/// Measures every cell of the grid of dtypes, prompt classes, batch sizes, temperatures, drafters, trees and policies,
/// in that order of nesting, and returns them in that order. Cells that are in options.cells already are read from it;
/// the others are appended to it as soon as they are measured.
///
/// What host.poll throws ends the run, and what is in the file stays. Throws Error when no cell can run at all; nothing
/// is appended then.
std::vector<BenchCell> run_grid(const Settings& settings, const RunOptions& options, BenchHost host);

}  // namespace specmoe::cli
