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

/// A tree and what is expected of it.
struct Candidate {
  std::string name;  // as short as it can be given
  std::optional<Prediction> expected{};
};

/// A tree with what was expected of it and what came.
///
/// expected  nothing where the tree grows by what it sees and a replay is not to be had
struct TunedTree : Candidate {
  BenchCell cell;

  bool ran() const { return cell.failure.empty(); }
  /// Tokens per second over those of plain decoding, all texts together: unlike the median over texts, it is what tau
  /// and r(T) make.
  double speedup() const;
};

/// What result files keep of a tree: the line of its cell, with what was predicted.
std::string line_of(const TunedTree& tree, const Provenance& provenance, const std::string& config_json);

/// Finds the tree that pays most: runs a few small ones, fits a SpeedupModel to them, predicts chains of all lengths
/// and fixed trees of all sizes, and runs the best of both beside options.trees and the tree that weighs nodes by the
/// fitted times. Where greedy texts are kept these are predicted as well, by replay, and where no trees were asked for,
/// the best of a few that grow by what they see are run.
class Tuner {
 public:
  Tuner(const RunOptions& options, const Models& models, BenchHost host);

  /// Throws Error when plain decoding or the chains cannot run.
  void run();

  /// All that was run: those that the model is fitted to, then the others.
  std::span<const TunedTree> trees() const { return trees_; }
  std::span<const TunedTree> probes() const { return trees().first(probes_); }
  std::span<const TunedTree> chosen() const { return trees().subspan(probes_); }
  /// Why trees that grow by what they see were not predicted; empty where they were.
  const std::string& why_not_replayed() const { return why_not_replayed_; }
  /// Predicted and not run, the best first.
  std::span<const Candidate> passed_over() const { return passed_over_; }
  const SpeedupModel& model() const { return *model_; }
  /// Of chains of 1, 2, .. tokens.
  const std::vector<Prediction>& chains() const { return chains_; }
  /// How often the drafter's first, second, .. choice is the accepted one; empty where no tree could run.
  const std::vector<double>& rates() const { return rates_; }
  /// The fastest of all that ran; null when none was faster than plain decoding.
  const TunedTree* fastest() const;

 private:
  void measure(const std::vector<Candidate>& trees);
  void probe();
  void fit();
  void choose();
  std::vector<Candidate> growing_trees() const;
  std::vector<RequestRecord> replayed(const std::string& tree);
  void try_replay();
  bool replays() const { return drafting_ratio_.has_value(); }
  void predict(Candidate& tree);
  void pass_over_all_but_best(std::vector<Candidate>& trees);
  std::optional<Candidate> best_branching_tree() const;
  std::vector<double> acceptance_by_rank() const;
  EngineSpec spec_of(const std::string& tree) const;
  /// The cell of the longest chain that was probed.
  const BenchCell& longest() const;

  RunOptions options_;
  Engines engines_;
  BenchHost host_;
  std::vector<TunedTree> trees_;
  std::size_t probes_ = 0;  // of them, at the beginning
  std::vector<Candidate> passed_over_;
  std::optional<SpeedupModel> model_;
  std::vector<Prediction> chains_;
  std::vector<double> rates_;
  std::string why_not_replayed_;
  std::optional<double> drafting_ratio_;  // time of a draft in a run over that in a replay; nothing: none is to be had
};

}  // namespace specmoe::cli
