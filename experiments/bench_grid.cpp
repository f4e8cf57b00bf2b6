#include "experiments/bench_grid.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "experiments/cell_line.h"
#include "experiments/cells_file.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

using Json = nlohmann::ordered_json;

/// Methods that take turns beside one plain run: more share its cost, fewer are lost when a run is interrupted.
constexpr std::size_t kMostTogether = 8;

/// FNV-1a, 64 bits, in hexadecimal.
std::string digest(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3ULL;
  constexpr const char* kDigits = "0123456789abcdef";
  std::string name;
  for (int shift = 60; shift >= 0; shift -= 4) name += kDigits[(hash >> shift) & 15];
  return name;
}

std::string digest_of(const std::vector<Prompt>& prompts) {
  Json all = Json::array();
  for (const Prompt& prompt : prompts) all.push_back({prompt.id, prompt.text});
  return digest(all.dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// Names a cell by everything that its figures depend on but the machine and the code.
std::string cell_id(const RunOptions& options, const Block& block, const EngineSpec& spec) {
  Json all = {options.target,
              spec.drafter,
              spec.tree,
              spec.acceptance,
              spec.allow_lossy,
              block.dtype,
              options.device,
              options.threads,
              block.category,
              digest_of(block.prompts),
              block.batch,
              block.temperature,
              options.sampling.top_k,
              options.sampling.top_p,
              options.sampling.seed,
              options.max_new_tokens,
              options.stops,
              options.ignore_eos,
              options.repeat};
  if (options.kv_dtype != "float32")
    all.push_back(options.kv_dtype);  // so cells from before the choice keep their name
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
          const EngineSpec spec{drafter, tree, acceptance, options.allow_lossy};
          block.cells.push_back({cell_id(options, block, spec), spec});
        }
      }
    }
  }
  return blocks;
}

class Grid {
 public:
  Grid(const Settings& settings, const RunOptions& options, BenchHost host)
      : options_(options), host_(host), file_(options.cells, host.progress), config_(settings.json()) {
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
    std::string failure;
    for (const Block& block : pending_) {
      if (block.dtype != dtype) continue;
      try {
        if (!models && failure.empty()) engines.emplace(models.emplace(open_models(options_, dtype, host_.progress)));
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
    host_.work_total += work_of(pending_.back(), options_.repeat);
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

std::vector<BenchCell> run_grid(const Settings& settings, const RunOptions& options, OutputFile& output,
                                Progress& progress, const std::function<void()>& poll) {
  return Grid(settings, options, {output, progress, poll}).run();
}

}  // namespace specmoe::cli
