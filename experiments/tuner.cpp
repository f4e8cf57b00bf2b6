#include "experiments/tuner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "experiments/cell_line.h"
#include "experiments/table.h"
#include "kernels/check.h"
#include "tree/sequoia_dp.h"

namespace specmoe::cli {
namespace {

// Chains tell which tokens are proposed and what rows cost, stars how often each rank is accepted.
constexpr int kProbedChains[] = {1, 3, 8};
constexpr int kProbedWidths[] = {2, 4, 8};
constexpr int kLongestChain = 16;
constexpr int kMostNodes = 32;  // of a fixed tree, root included
constexpr int kMostDepth = 8;

// Tried by replay, and the best few run. Small ones: each row of a pass wakes further experts.
constexpr const char* kGrowing[] = {"best_first(nodes=4,width=2)", "best_first(nodes=8,width=4)",
                                    "confidence(nodes=4,width=2)", "confidence(nodes=8,width=4)",
                                    "opt_tree(nodes=4,width=2)",   "opt_tree(nodes=8,width=4)",
                                    "gated(nodes=4,width=2)",      "gated(nodes=8,width=4)"};
constexpr double kThresholds[] = {0.3, 0.5, 0.7, 0.9};
constexpr std::size_t kMostGrowing = 3;  // of those are run

std::string chain(int gamma) { return concat("chain(gamma=", gamma, ")"); }
std::string star(int width) { return concat("expansion(", width, ")"); }

std::string sequoia(const std::vector<double>& rates, int nodes, int depth) {
  std::string text;
  for (const double rate : rates) text += concat(text.empty() ? "" : ",", fixed(rate, 4));
  return concat("sequoia(", text, ",nodes=", nodes, ",depth=", depth, ")");
}

/// The tree that weighs every node by what the model says of its time.
std::string expert_aware(const SpeedupModel& model) {
  std::string times = "1:1";
  for (int rows = 2; rows <= kMostNodes; rows *= 2) {
    times += concat('/', rows, ':', fixed(model.cost_ratio(rows - 1), 2));
  }
  const double draft_time = model.draft_seconds(1, 1) / model.plain_pass_seconds();
  return concat("expert_aware(draft_time=", fixed(draft_time, 3), ",verify_times=", times, ")");
}

Counts counts_of(std::span<const RequestRecord> texts) {
  Counts counts;
  for (const RequestRecord& text : texts) counts.add(text);
  return counts;
}

/// Of a step, in the mean.
double draft_seconds(const Counts& counts) {
  return 1e-9 * static_cast<double>(counts.times.draft_ns) / static_cast<double>(counts.steps);
}

/// Cut to the digits that sequoia() writes, so that they never sum to more than 1.
double cut(double rate) { return std::floor(1e4 * rate) / 1e4; }

}  // namespace

double TunedTree::speedup() const {
  return derive(cell.summary.speculative, 0).tokens_per_s / derive(cell.summary.plain, 0).tokens_per_s;
}

std::string line_of(const TunedTree& tree, const Provenance& provenance, const std::string& config_json) {
  auto line = nlohmann::ordered_json::parse(line_of(tree.cell, provenance, config_json));
  if (tree.expected) {
    line["predicted"] = {{"tau", tree.expected->tau},
                         {"verify_cost_ratio", tree.expected->cost},
                         {"tokens_per_s_ratio", tree.expected->speedup}};
  }
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Tuner::Tuner(const RunOptions& options, const Models& models, BenchHost host)
    : options_(options), engines_(models), host_(std::move(host)) {
  options_.show_text = true;  // keeps what each step did
}

void Tuner::run() {
  probe();
  fit();
  try_replay();
  choose();
}

EngineSpec Tuner::spec_of(const std::string& tree) const {
  return {options_.drafters[0], tree, options_.acceptances[0], options_.allow_lossy};
}

void Tuner::measure(const std::vector<Candidate>& trees) {
  Block block = {options_.dtypes[0], "all", options_.batches[0], options_.temperatures[0], options_.prompts, {}};
  for (const Candidate& tree : trees) block.cells.push_back({"", spec_of(tree.name)});
  host_.work_total += work_of(options_, block);
  std::vector<BenchCell> cells = measure_block(options_, block, engines_, host_);
  for (std::size_t i = 0; i < cells.size(); ++i) trees_.push_back({trees[i], std::move(cells[i])});
}

void Tuner::probe() {
  std::vector<Candidate> trees;
  for (const int gamma : kProbedChains) trees.push_back({chain(gamma)});
  for (const int width : kProbedWidths) trees.push_back({star(width)});
  measure(trees);
  probes_ = trees_.size();
  for (const TunedTree& tree : probes().first(std::size(kProbedChains))) {
    SPECMOE_CHECK(tree.ran(), tree.name, ": ", tree.cell.failure);
  }
}

void Tuner::fit() {
  std::vector<Counts> counts;
  for (const TunedTree& probe : probes()) {
    if (probe.ran()) counts.push_back(probe.cell.summary.speculative);
  }
  model_.emplace(longest().target, longest().summary.plain, counts);
  const int written_by = kProbedChains[std::size(kProbedChains) - 1];
  const double drafted =
      drafted_nodes(longest().summary.speculative) / written_by;  // of what was asked for: drafts end where texts do
  for (int gamma = 1; gamma <= kLongestChain; ++gamma) {
    chains_.push_back(
        model_->predict(chain_tokens(longest().texts, written_by, gamma), drafted * gamma, drafted * gamma));
  }
  rates_ = acceptance_by_rank();
  for (TunedTree& probe : trees_) {
    if (!probe.ran()) continue;
    const Counts& counts = probe.cell.summary.speculative;
    const double drafting = model_->draft_seconds(drafted_nodes(counts), drafted_levels(counts));
    probe.expected = model_->predict(probe.cell.texts, drafting);
  }
}

const BenchCell& Tuner::longest() const { return trees_[std::size(kProbedChains) - 1].cell; }

/// Of a star of k children one is accepted as often as one of the first k ranks is the accepted one; what ranks between
/// two probed widths add is shared among them alike.
std::vector<double> Tuner::acceptance_by_rank() const {
  std::vector<double> rates;
  double below = 0;
  const auto add = [&](const BenchCell& cell, int width) {
    const std::vector<double> accepted = derive(cell.summary.speculative, 0).acceptance_per_position;
    const double within = accepted.empty() ? 0 : accepted[0];
    const double each = cut((within - below) / (width - static_cast<int>(rates.size())));
    while (each > 0 && static_cast<int>(rates.size()) < width) rates.push_back(each);
    below = std::max(below, within);
  };
  add(trees_[0].cell, 1);
  for (std::size_t i = 0; i < std::size(kProbedWidths) && !rates.empty(); ++i) {
    const TunedTree& probe = trees_[std::size(kProbedChains) + i];
    if (!probe.ran()) return {};
    add(probe.cell, kProbedWidths[i]);
  }
  return rates;
}

std::optional<Candidate> Tuner::best_branching_tree() const {
  std::optional<Candidate> best;
  if (rates_.empty()) return best;
  const SequoiaTable table(rates_, kMostNodes, kMostDepth);
  for (int depth = 1; depth <= kMostDepth; ++depth) {
    for (int nodes = depth + 2; nodes <= kMostNodes; ++nodes) {  // with one less it is a chain
      const double tau = table.expected(nodes, depth);
      if (!(tau > 0)) continue;  // no such tree
      const Prediction one = model_->predict(tau, nodes - 1, depth);
      if (!best || one.speedup > best->expected->speedup) best = {sequoia(rates_, nodes, depth), one};
    }
  }
  return best;
}

/// Those that grow by what they see.
std::vector<Candidate> Tuner::growing_trees() const {
  std::vector<Candidate> trees = {{expert_aware(*model_)}};
  if (!options_.trees[0].empty()) {
    for (const std::string& tree : options_.trees) trees.push_back({tree});
  } else if (!replays()) {
    trees.insert(trees.end(), {{"adaptive_chain"}, {"adaptive_chain(threshold=0.7)"}});
  } else {
    for (const double threshold : kThresholds) trees.push_back({concat("adaptive_chain(threshold=", threshold, ")")});
    for (const char* tree : kGrowing) trees.push_back({tree});
  }
  return trees;
}

std::vector<RequestRecord> Tuner::replayed(const std::string& tree) {
  host_.progress.step(host_.work_done, host_.work_total, "replay, " + tree);
  const Engines::Entry& entry = engines_.get(spec_of(tree));
  SPECMOE_CHECK(entry.engine != nullptr, entry.failure);
  return entry.engine->replay(longest().requests, longest().texts, host_.poll);
}

/// Finds out whether a replay is to be had, which needs texts that every tree writes, and to be trusted: whether the
/// probes do in it what they did when they ran. A drafter that goes by more than the text does not.
void Tuner::try_replay() {
  double run = 0, replay = 0;
  try {
    for (const TunedTree& probe : probes()) {
      if (!probe.ran()) continue;
      const Counts ran = counts_of(probe.cell.texts), counts = counts_of(replayed(probe.name));
      SPECMOE_CHECK(counts.drafted == ran.drafted && counts.accepted == ran.accepted,
                    "the drafter goes by more than the text: ", probe.name, " drafted ", ran.drafted,
                    " tokens, its replay ", counts.drafted);
      run += draft_seconds(probe.cell.summary.speculative);
      replay += draft_seconds(counts);
    }
  } catch (const std::exception& error) {
    why_not_replayed_ = error.what();
    return;
  }
  drafting_ratio_ = run / replay;
}

/// Predicts a tree by the steps that it takes over the texts, and by the time that it drafts in them: less than in a
/// run, where passes of the target push the drafter out of the caches. What cannot be replayed is left to its run.
void Tuner::predict(Candidate& tree) {
  try {
    const std::vector<RequestRecord> texts = replayed(tree.name);
    tree.expected = model_->predict(texts, *drafting_ratio_ * draft_seconds(counts_of(texts)));
  } catch (const std::exception&) {
    return;
  }
}

/// Trees of which nothing is predicted stay.
void Tuner::pass_over_all_but_best(std::vector<Candidate>& trees) {
  const auto speed = [](const Candidate& tree) {
    return tree.expected ? tree.expected->speedup : std::numeric_limits<double>::infinity();
  };
  std::stable_sort(trees.begin(), trees.end(),
                   [&](const Candidate& a, const Candidate& b) { return speed(a) > speed(b); });
  const auto unknown = std::count_if(trees.begin(), trees.end(), [](const Candidate& tree) { return !tree.expected; });
  const std::size_t kept = std::min(trees.size(), kMostGrowing + static_cast<std::size_t>(unknown));
  passed_over_.assign(trees.begin() + static_cast<std::ptrdiff_t>(kept), trees.end());
  trees.resize(kept);
}

void Tuner::choose() {
  const auto by_speed = [](const Prediction& a, const Prediction& b) { return a.speedup < b.speedup; };
  const auto best = std::max_element(chains_.begin(), chains_.end(), by_speed);
  std::vector<Candidate> trees = {{chain(static_cast<int>(best - chains_.begin()) + 1), *best}};
  if (const auto tree = best_branching_tree()) trees.push_back(*tree);
  std::vector<Candidate> growing = growing_trees();
  if (replays()) {
    for (Candidate& tree : trees) predict(tree);
    for (Candidate& tree : growing) predict(tree);
    if (options_.trees[0].empty()) pass_over_all_but_best(growing);
  }
  for (const Candidate& tree : growing) {
    const auto same = [&](const Candidate& other) { return other.name == tree.name; };
    if (std::none_of(trees.begin(), trees.end(), same)) trees.push_back(tree);
  }
  measure(trees);
}

const TunedTree* Tuner::fastest() const {
  const TunedTree* best = nullptr;
  for (const TunedTree& tree : trees_) {
    if (tree.ran() && tree.speedup() > (best == nullptr ? 1 : best->speedup())) best = &tree;
  }
  return best;
}

}  // namespace specmoe::cli
