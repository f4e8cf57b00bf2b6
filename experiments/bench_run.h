#pragma once

#include <string>
#include <vector>

#include "core/results.h"
#include "experiments/models.h"
#include "experiments/output_file.h"
#include "experiments/progress.h"
#include "experiments/run_options.h"

namespace specmoe::cli {

/// One drafter, topology, policy and temperature beside plain decoding.
struct BenchCell {
  BenchSummary summary;
  std::string difference;  // the first one from plain decoding (greedy) or between two runs of one seed; empty: none
  std::vector<RequestRecord> texts;  // of the first run, by prompt
  std::string failure;               // why it could not run; then the rest is empty
};

/// Measures every cell of the grid of drafters, trees, policies and temperatures, in that order of nesting.
///
/// All methods run in one process on the same prompts. Prompts run in groups of `batch`; in each group the methods
/// take turns, plain first, and then again in reverse order, so that a slow drift of the machine hits all alike. One
/// short run of every method beforehand is not measured. Every run becomes a line of the output file.
/// A cell that cannot run (a policy that is not lossless for the draft, say) is returned with its error and the others
/// go on. Throws Error, before anything is measured, when none can.
std::vector<BenchCell> run_grid(const RunOptions& options, const Models& models, OutputFile& output,
                                Progress& progress);

}  // namespace specmoe::cli
