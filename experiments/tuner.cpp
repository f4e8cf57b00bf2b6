#include "experiments/tuner.h"

#include <algorithm>
#include <cmath>
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
  choose();
}

void Tuner::measure(const std::vector<std::string>& trees) {
  Block block = {options_.dtypes[0], "all", options_.batches[0], options_.temperatures[0], options_.prompts, {}};
  for (const std::string& tree : trees) {
    block.cells.push_back({"", {options_.drafters[0], tree, options_.acceptances[0], options_.allow_lossy}});
  }
  host_.work_total += work_of(options_, block);
  std::vector<BenchCell> cells = measure_block(options_, block, engines_, host_);
  for (std::size_t i = 0; i < cells.size(); ++i) trees_.push_back({trees[i], std::move(cells[i])});
}

void Tuner::probe() {
  std::vector<std::string> trees;
  for (const int gamma : kProbedChains) trees.push_back(chain(gamma));
  for (const int width : kProbedWidths) trees.push_back(star(width));
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
  const BenchCell& longest = trees_[std::size(kProbedChains) - 1].cell;
  model_.emplace(longest.target, longest.summary.plain, counts);
  const int written_by = kProbedChains[std::size(kProbedChains) - 1];
  const double drafted =
      drafted_nodes(longest.summary.speculative) / written_by;  // of what was asked for: drafts end where texts do
  for (int gamma = 1; gamma <= kLongestChain; ++gamma) {
    chains_.push_back(predict(chain_tokens(longest.texts, written_by, gamma), drafted * gamma, drafted * gamma));
  }
  rates_ = acceptance_by_rank();
  for (std::size_t i = 0; i < probes_; ++i) {
    if (!trees_[i].ran()) continue;
    const Counts& counts = trees_[i].cell.summary.speculative;
    const bool is_chain = i < std::size(kProbedChains);
    const double tau = is_chain ? chains_[kProbedChains[i] - 1].tau : derive(counts, 0).tau;
    trees_[i].expected = predict(tau, drafted_nodes(counts), drafted_levels(counts));
  }
}

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

Prediction Tuner::predict(double tau, double nodes, double levels) const {
  return {tau, model_->cost_ratio(nodes), model_->speedup(tau, nodes, levels)};
}

std::optional<std::pair<std::string, Prediction>> Tuner::best_branching_tree() const {
  std::optional<std::pair<std::string, Prediction>> best;
  if (rates_.empty()) return best;
  const SequoiaTable table(rates_, kMostNodes, kMostDepth);
  for (int depth = 1; depth <= kMostDepth; ++depth) {
    for (int nodes = depth + 2; nodes <= kMostNodes; ++nodes) {  // with one less it is a chain
      const double tau = table.expected(nodes, depth);
      if (!(tau > 0)) continue;  // no such tree
      const Prediction one = predict(tau, nodes - 1, depth);
      if (!best || one.speedup > best->second.speedup) best = {sequoia(rates_, nodes, depth), one};
    }
  }
  return best;
}

void Tuner::choose() {
  const auto by_speed = [](const Prediction& a, const Prediction& b) { return a.speedup < b.speedup; };
  const auto best = std::max_element(chains_.begin(), chains_.end(), by_speed);
  std::vector<std::string> trees = {chain(static_cast<int>(best - chains_.begin()) + 1)};
  std::vector<Prediction> expected = {*best};
  if (const auto tree = best_branching_tree()) {
    trees.push_back(tree->first);
    expected.push_back(tree->second);
  }
  trees.push_back(expert_aware(*model_));
  const bool asked = !options_.trees[0].empty();
  const std::vector<std::string> growing = {"adaptive_chain", "adaptive_chain(threshold=0.7)"};
  for (const std::string& tree : asked ? options_.trees : growing) {
    if (std::find(trees.begin(), trees.end(), tree) == trees.end()) trees.push_back(tree);
  }
  measure(trees);
  for (std::size_t i = 0; i < expected.size(); ++i) trees_[probes_ + i].expected = expected[i];
}

const TunedTree* Tuner::fastest() const {
  const TunedTree* best = nullptr;
  for (const TunedTree& tree : trees_) {
    if (tree.ran() && tree.speedup() > (best == nullptr ? 1 : best->speedup())) best = &tree;
  }
  return best;
}

}  // namespace specmoe::cli
