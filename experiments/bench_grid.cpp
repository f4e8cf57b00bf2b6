#include "experiments/bench_grid.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "experiments/cell_line.h"
#include "experiments/cells_file.h"
#include "experiments/fingerprint.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

using Json = nlohmann::ordered_json;

/// Methods that take turns beside one plain run: more share its cost, fewer are lost when a run is interrupted.
constexpr std::size_t kMostTogether = 8;

std::string digest_of(const std::vector<Prompt>& prompts, bool all_turns) {
  Json all = Json::array();
  for (const Prompt& prompt : prompts) {
    all.push_back({prompt.id, prompt.text});
    if (all_turns && prompt.turns.size() > 1) all.push_back(prompt.turns);
  }
  return digest(all.dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// The weights that run under each drafter's spec: the target's and those of the models that the spec names.
std::map<std::string, std::string> weights_of(const RunOptions& options) {
  const std::string target = fingerprint(options.target);
  std::map<std::string, std::string> weights;
  for (const std::string& drafter : options.drafters) {
    std::string& all = weights[drafter] = target;
    if (drafter.empty()) continue;
    for (const DraftCheckpoint& opened : drafters().create(drafter)->checkpoints()) all += fingerprint(opened.path);
  }
  return weights;
}

/// Names a cell by everything that its figures depend on but the machine and the code.
std::string cell_id(const RunOptions& options, const std::string& weights, const Block& block, const EngineSpec& spec) {
  Json all = {options.target,
              weights,
              spec.drafter,
              spec.tree,
              spec.acceptance,
              spec.allow_lossy,
              block.dtype,
              kernels::dtype_name(options.kv_dtype),
              options.device,
              options.threads,
              block.category,
              digest_of(block.prompts, options.all_turns),
              block.batch,
              block.temperature,
              options.sampling.top_k,
              options.sampling.top_p,
              options.sampling.seed,
              options.max_new_tokens,
              options.stops,
              options.ignore_eos,
              options.repeat};
  // Otherwise cells keep the names that they have always had.
  if (spec.device_loop) all.push_back("device loop");
  if (spec.device_switch) all.push_back("device switch");
  if (options.fast_prefill) all.push_back("fast prefill");
  const SamplingParams& sampling = options.sampling;
  if (sampling.min_p > 0) all.push_back({"min_p", sampling.min_p});
  if (sampling.penalises()) {
    all.push_back({"penalties", sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty});
  }
  return digest(all.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::vector<Prompt> prompts_in(const RunOptions& options, const std::string& category) {
  std::vector<Prompt> prompts;
  for (const Prompt& prompt : options.prompts) {
    if (category == "all" || prompt.category == category) prompts.push_back(prompt);
  }
  return prompts;
}

/// Every block of the grid with all its cells.
std::vector<Block> blocks_of(const RunOptions& options) {
  const std::map<std::string, std::string> weights = weights_of(options);
  std::vector<Block> blocks;
  for (const std::string& dtype : options.dtypes) {
    for (const std::string& category : options.categories) {
      for (int batch : options.batches) {
        for (double temperature : options.temperatures) {
          blocks.push_back({dtype, category, batch, temperature, prompts_in(options, category), {}});
        }
      }
    }
  }
  for (Block& block : blocks) {
    for (const std::string& drafter : options.drafters) {
      for (const std::string& tree : options.trees) {
        for (const std::string& acceptance : options.acceptances) {
          const EngineSpec spec{
              drafter, tree, acceptance, options.allow_lossy, options.device_loop, options.device_switch};
          block.cells.push_back({cell_id(options, weights.at(drafter), block, spec), spec});
        }
      }
    }
  }
  return blocks;
}

class Grid {
 public:
  Grid(const Settings& settings, const RunOptions& options, BenchHost host)
      : options_(options), host_(std::move(host)), file_(options.cells, host_.progress), config_(settings.json()) {
    std::size_t cells = 0;
    for (const Block& block : blocks_of(options)) {
      cells += block.cells.size();
      plan(block);
    }
    if (!found_.empty()) {
      host_.progress.say(concat(found_.size(), " of ", cells, " cells are in ", options.cells, " already"));
    }
  }

  std::vector<BenchCell> run() {
    for (const std::string& dtype : options_.dtypes) run_dtype(dtype);
    host_.progress.clear();
    if (!succeeded_) fail(kept_.empty() ? "the grid has no cell" : first_failure());
    return in_order();
  }

 private:
  /// One dtype's weights are in memory at a time.
  void run_dtype(const std::string& dtype) {
    std::optional<Models> models;
    std::optional<Engines> engines;
    std::shared_ptr<void> held;
    std::string failure;
    for (const Block& block : pending_) {
      if (block.dtype != dtype) continue;
      try {
        if (!models && failure.empty()) {
          engines.emplace(models.emplace(open_models(options_, dtype, host_.progress)));
          if (host_.opened) held = host_.opened(*models);
        }
      } catch (const std::exception& error) {
        failure = error.what();
      }
      if (failure.empty()) {
        for (BenchCell& cell : measure_block(options_, block, *engines, host_)) keep(std::move(cell));
      } else {
        for (const CellPlan& plan : block.cells) {
          BenchCell cell;
          cell.summary = settings_of(options_, block, plan);
          cell.failure = failure;
          keep(std::move(cell));
        }
      }
    }
  }

  /// Takes the cells that are there, and splits the others into blocks that run together.
  void plan(Block block) {
    std::vector<CellPlan> cells = std::move(block.cells);
    block.cells.clear();
    for (CellPlan& cell : cells) {
      order_.push_back(cell.id);
      if (const std::string* line = file_.find(cell.id)) {
        found_.push_back(cell_from_line(*line));
        succeeded_ |= found_.back().failure.empty();
        continue;
      }
      block.cells.push_back(std::move(cell));
      if (block.cells.size() == kMostTogether) add_pending(block);
    }
    if (!block.cells.empty()) add_pending(block);
  }

  void add_pending(Block& block) {
    pending_.push_back(block);
    block.cells.clear();
    host_.work_total += work_of(options_, pending_.back());
  }

  /// Failures wait for a first success: a mistake that concerns every cell is reported, not recorded.
  void keep(BenchCell cell) {
    cell.line = line_of(cell, provenance_, config_);
    kept_.push_back(std::move(cell));
    succeeded_ |= kept_.back().failure.empty();
    for (; succeeded_ && written_ < kept_.size(); ++written_) file_.append(kept_[written_].line);
  }

  const std::string& first_failure() const {
    return std::find_if(kept_.begin(), kept_.end(), [](const BenchCell& cell) { return !cell.failure.empty(); })
        ->failure;
  }

  std::vector<BenchCell> in_order() {
    std::map<std::string, BenchCell> by_id;
    for (std::vector<BenchCell>* some : {&found_, &kept_}) {
      for (BenchCell& cell : *some) by_id.emplace(cell.summary.cell, std::move(cell));
    }
    std::vector<BenchCell> cells;
    for (const std::string& id : order_) cells.push_back(std::move(by_id.at(id)));
    return cells;
  }

  const RunOptions& options_;
  BenchHost host_;
  CellsFile file_;
  std::string config_;
  Provenance provenance_ = collect_provenance();
  std::vector<std::string> order_;
  std::vector<Block> pending_;
  std::vector<BenchCell> found_, kept_;
  std::size_t written_ = 0;  // of kept_
  bool succeeded_ = false;   // some cell did, now or before
};

}  // namespace

std::vector<BenchCell> run_grid(const Settings& settings, const RunOptions& options, BenchHost host) {
  return Grid(settings, options, std::move(host)).run();
}

}  // namespace specmoe::cli
