#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/provenance.h"
#include "core/speedup_model.h"
#include "experiments/bench_run.h"

namespace specmoe::cli {

/// What is expected of a tree before it runs.
struct Prediction {
  double tau = 0;
  double cost = 0;  // r(T)
  double speedup = 0;
};

/// A tree with what was expected of it and what came.
struct TunedTree {
  std::string name;  // as short as it can be given
  BenchCell cell;
  std::optional<Prediction> expected{};  // nothing where the tree grows by what it sees

  bool ran() const { return cell.failure.empty(); }
  /// Tokens per second over those of plain decoding, all texts together: unlike the median over texts, it is what tau
  /// and r(T) make.
  double speedup() const;
};

/// What result files keep of a tree: the line of its cell, with what was predicted.
std::string line_of(const TunedTree& tree, const Provenance& provenance, const std::string& config_json);

/// Finds the tree that pays most: runs a few small ones, fits a SpeedupModel to them, predicts chains of all lengths
/// and fixed trees of all sizes, and runs the best of both, the tree that weighs nodes by the fitted times, and
/// options.trees (none: chains that stop where the draft is unsure).
class Tuner {
 public:
  Tuner(const RunOptions& options, const Models& models, BenchHost host);

  /// Throws Error when plain decoding or the chains cannot run.
  void run();

  /// All that was run: those that the model is fitted to, then the others.
  std::span<const TunedTree> trees() const { return trees_; }
  std::span<const TunedTree> probes() const { return trees().first(probes_); }
  std::span<const TunedTree> chosen() const { return trees().subspan(probes_); }
  const SpeedupModel& model() const { return *model_; }
  /// Of chains of 1, 2, .. tokens.
  const std::vector<Prediction>& chains() const { return chains_; }
  /// How often the drafter's first, second, .. choice is the accepted one; empty where no tree could run.
  const std::vector<double>& rates() const { return rates_; }
  /// The fastest of all that ran; null when none was faster than plain decoding.
  const TunedTree* fastest() const;

 private:
  void measure(const std::vector<std::string>& trees);
  void probe();
  void fit();
  void choose();
  std::optional<std::pair<std::string, Prediction>> best_branching_tree() const;
  Prediction predict(double tau, double nodes, double levels) const;
  std::vector<double> acceptance_by_rank() const;

  RunOptions options_;
  Engines engines_;
  BenchHost host_;
  std::vector<TunedTree> trees_;
  std::size_t probes_ = 0;  // of them, at the beginning
  std::optional<SpeedupModel> model_;
  std::vector<Prediction> chains_;
  std::vector<double> rates_;
};

}  // namespace specmoe::cli
