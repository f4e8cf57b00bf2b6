#include "core/oracle_bounds.h"

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <queue>

#include "core/prover_draft.h"

namespace specmoe {
namespace {

/// Texts of one length, as numbers base V, and the probability of each set of them being drafted.
using DraftedSets = std::map<std::vector<int>, double>;

/// Greatest flow from sets to the texts in them (Dinic): source -> set -> text -> sink.
class Transport {
 public:
  Transport(const DraftedSets& sets, std::span<const double> demand)
      : sink_(static_cast<int>(sets.size() + demand.size()) + 1), edges_of_(sink_ + 1) {
    const int texts = static_cast<int>(sets.size()) + 1;
    int set = 1;
    for (const auto& [members, probability] : sets) {
      add_edge(0, set, probability);
      for (int text : members) add_edge(set, texts + text, 2.0);
      ++set;
    }
    for (std::size_t text = 0; text < demand.size(); ++text)
      add_edge(texts + static_cast<int>(text), sink_, demand[text]);
  }

  double solve() {
    double total = 0.0;
    while (layer()) {
      next_.assign(edges_of_.size(), 0);
      for (double pushed = push(0, 2.0); pushed > kNothing; pushed = push(0, 2.0)) total += pushed;
    }
    return total;
  }

 private:
  struct Edge {
    int to;
    double room;
  };
  static constexpr double kNothing = 1e-15;

  void add_edge(int from, int to, double room) {
    edges_of_[from].push_back(static_cast<int>(edges_.size()));
    edges_.push_back({to, room});
    edges_of_[to].push_back(static_cast<int>(edges_.size()));
    edges_.push_back({from, 0.0});
  }
  bool layer() {
    level_.assign(edges_of_.size(), -1);
    level_[0] = 0;
    std::queue<int> open;
    open.push(0);
    while (!open.empty()) {
      const int at = open.front();
      open.pop();
      for (int id : edges_of_[at]) {
        const Edge& edge = edges_[id];
        if (edge.room <= kNothing || level_[edge.to] >= 0) continue;
        level_[edge.to] = level_[at] + 1;
        open.push(edge.to);
      }
    }
    return level_[sink_] >= 0;
  }
  double push(int at, double room) {
    if (at == sink_) return room;
    for (std::size_t& i = next_[at]; i < edges_of_[at].size(); ++i) {
      const int id = edges_of_[at][i];
      if (edges_[id].room <= kNothing || level_[edges_[id].to] != level_[at] + 1) continue;
      const double pushed = push(edges_[id].to, std::min(room, edges_[id].room));
      if (pushed <= kNothing) continue;
      edges_[id].room -= pushed;
      edges_[id ^ 1].room += pushed;
      return pushed;
    }
    return 0.0;
  }

  int sink_;
  std::vector<std::vector<int>> edges_of_;
  std::vector<Edge> edges_;
  std::vector<int> level_;
  std::vector<std::size_t> next_;
};

/// [depth] the drafted sets of texts of depth + 1 tokens.
std::vector<DraftedSets> drafted_sets(DraftLaw law, const TreePolicy& tree, const ProofModels& models) {
  const DrawFunction draw;
  detail::ToyDrafting<double> drafting(law, tree, models, draw);
  Enumerator<double> uniforms;
  std::vector<DraftedSets> sets(tree.max_depth());
  std::vector<std::vector<int>> texts;
  std::vector<int> text_of;
  do {
    drafting.grow(drafting.start_state(), uniforms);
    const TokenTree& grown = drafting.draft().tree;
    texts.assign(tree.max_depth(), {});
    text_of.assign(grown.size(), 0);
    for (NodeId n = 1; n < grown.size(); ++n) {
      text_of[n] = text_of[grown.parent(n)] * models.target.vocab + grown.token(n);
      texts[grown.depth(n) - 1].push_back(text_of[n]);
    }
    for (std::size_t depth = 0; depth < sets.size(); ++depth) {
      std::vector<int>& members = texts[depth];
      std::sort(members.begin(), members.end());
      members.erase(std::unique(members.begin(), members.end()), members.end());
      sets[depth][members] += uniforms.weight();
    }
  } while (uniforms.next() != Enumerator<double>::Again::kNever);
  return sets;
}

}  // namespace

OracleBounds oracle_bounds(DraftLaw law, const TreePolicy& tree, const ProofModels& models) {
  models.validate();
  const std::vector<DraftedSets> sets = drafted_sets(law, tree, models);
  const MarkovRows<double> target(models.target);
  const int vocab = models.target.vocab;
  OracleBounds bounds;
  bounds.expected_tokens = 1.0;
  // The target's law of texts, one token longer at each depth, and the state that each text ends in.
  const DrawFunction draw;
  const detail::ToyDrafting<double> texts(law, tree, models, draw);
  std::vector<double> probability = {1.0};
  std::vector<int> state = {texts.start_state()};
  for (std::size_t depth = 0; depth < sets.size(); ++depth) {
    std::vector<double> longer;
    std::vector<int> longer_state;
    for (std::size_t text = 0; text < probability.size(); ++text) {
      for (TokenId x = 0; x < vocab; ++x) {
        longer.push_back(probability[text] * target.at_state(state[text])[x]);
        longer_state.push_back(texts.next_state(state[text], x));
      }
    }
    probability = std::move(longer);
    state = std::move(longer_state);
    const double flow = Transport(sets[depth], probability).solve();
    if (depth == 0) bounds.first_token = flow;
    bounds.expected_tokens += flow;
  }
  return bounds;
}

double optimal_iid_acceptance(std::span<const double> target_probs, std::span<const double> draft_probs, int k) {
  SPECMOE_CHECK(target_probs.size() == draft_probs.size(), "optimal acceptance: expected rows of one vocabulary, got ",
                target_probs.size(), " and ", draft_probs.size(), " tokens");
  std::vector<int> order(target_probs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return target_probs[a] * draft_probs[b] < target_probs[b] * draft_probs[a]; });
  double p = 0.0;
  double q = 0.0;
  double least = 0.0;
  for (int x : order) {
    p += target_probs[x];
    q += draft_probs[x];
    least = std::min(least, p - std::pow(q, k));
  }
  return 1.0 + least;
}

}  // namespace specmoe
