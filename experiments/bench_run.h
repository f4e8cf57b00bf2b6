#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "core/results.h"
#include "experiments/models.h"
#include "experiments/output_file.h"
#include "experiments/progress.h"
#include "experiments/run_options.h"

namespace specmoe::cli {

/// One cell of the grid, measured or failed.
struct BenchCell {
  BenchSummary summary;
  ModelInfo target{};
  int threads = 0;
  std::string step_leader{};           // as Engine::step_leader()
  std::vector<RequestRecord> texts{};  // of the first run, by prompt; kept for --show-text
  std::vector<Request> requests{};     // that they answer; kept with them
  std::string failure{};               // why it could not run; of the summary only the settings are there then
  std::string line{};                  // as it stands in result files
};

/// A cell to be measured: its name among all cells, and its method.
struct CellPlan {
  std::string id;
  EngineSpec spec;
};

/// What the cells of a block share: they take turns on the same prompts.
struct Block {
  std::string dtype;
  std::string category;
  int batch = 1;
  double temperature = 0;
  std::vector<Prompt> prompts;
  std::vector<CellPlan> cells;
};

/// Where a run tells what it does. work is counted in decoded prompts, over the whole grid.
struct BenchHost {
  OutputFile& output;
  Progress& progress;
  std::function<void()> poll;  // called between steps; what it throws ends the run
  /// Called when models are loaded and before engines are assembled; what it returns lives as long as the models do.
  std::function<std::shared_ptr<void>(const Models&)> opened = {};
  int work_done = 0;
  int work_total = 0;
};

/// Decoded prompts that a block takes.
int work_of(const RunOptions& options, const Block& block);

/// The engines over one pair of loaded models, each assembled once.
class Engines {
 public:
  /// An engine, or why there is none.
  struct Entry {
    EngineSpec spec;  // canonical
    std::shared_ptr<Engine> engine;
    std::string failure;
  };

  explicit Engines(const Models& models) : models_(models) {}
  const Entry& get(const EngineSpec& spec);
  const Models& models() const { return models_; }

 private:
  const Models& models_;
  std::map<std::tuple<std::string, std::string, std::string>, Entry> entries_;
};

/// Measures the cells of a block beside plain decoding, in one process.
///
/// Prompts run in groups of block.batch; in each group the methods take turns, plain first, and then again in reverse
/// order, so that a slow drift of the machine hits all alike. Prompt i of the file has seed + i: with one seed for all,
/// their coins would fall alike, and an interval over prompts would be too narrow. With options.all_turns the later
/// turns of a question are prompts as well, after plain decoding's answers to the earlier ones. One short run of every
/// method beforehand is not measured. Every run becomes a line of the output file. A cell that cannot run, or breaks
/// while it runs, is returned with its error, and the others go on; all fail when plain decoding does.
std::vector<BenchCell> measure_block(const RunOptions& options, const Block& block, Engines& engines, BenchHost& host);

/// The settings of a cell, as its summary starts out.
BenchSummary settings_of(const RunOptions& options, const Block& block, const CellPlan& plan);

}  // namespace specmoe::cli
