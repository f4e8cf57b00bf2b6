#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "core/draw.h"
#include "core/tree_policy.h"
#include "core/uniforms.h"

namespace specmoe::testing {

/// A drafter for topologies: the row after a text depends on the text alone.
struct TextRows {
  int vocab = 6;
  double sharpness = 2.0;
  std::uint64_t seed = 1;

  std::vector<double> after(const std::vector<TokenId>& text) const {
    std::uint64_t state = seed;
    for (TokenId token : text) state = state * 31 + static_cast<std::uint64_t>(token) + 1;
    const PhiloxUniforms uniforms(state, 0, 0);
    std::vector<double> row(vocab);
    double sum = 0.0;
    for (int x = 0; x < vocab; ++x) sum += row[x] = std::exp(sharpness * uniforms.value({x, Purpose::kPlugin, 0}));
    for (double& value : row) value /= sum;
    return row;
  }
};

inline std::vector<TokenId> text_of(const TokenTree& tree, NodeId node) {
  std::vector<TokenId> text;
  for (; node != TokenTree::kRoot; node = tree.parent(node)) text.insert(text.begin(), tree.token(node));
  return text;
}

/// What growing a draft took.
struct Grown {
  int nodes = 0;   // before pruning, root included
  int passes = 0;  // times the drafter was asked
};

/// Grows a draft level by level as core/grow.cpp does. Without rows, the drafter gives tokens, likeliest first.
template <class Real>
Grown grow_draft(const TreePolicy& tree, const TextRows& drafter, Draft<Real>& draft, DraftLaw law, bool rows = true,
                 std::uint64_t seed = 1) {
  PhiloxUniforms uniforms(seed, 1, 0);
  draft.law = law;
  draft.reset(0, drafter.vocab);
  std::vector<NodeId> frontier = {TokenTree::kRoot};
  std::vector<NodeId> added, next;
  std::vector<std::int32_t> proposed;
  std::vector<Growth> growth;
  Grown grown;
  while (!frontier.empty()) {
    ++grown.passes;
    proposed.clear();
    for (NodeId node : frontier) {
      const std::vector<double> row = drafter.after(text_of(draft.tree, node));
      proposed.push_back(draft.rows.add_dense(std::vector<Real>(row.begin(), row.end())));
    }
    const std::vector<std::int32_t> none(frontier.size(), -1);
    const GrowthView<Real> view{draft, frontier, rows ? std::span<const std::int32_t>(proposed) : none};
    growth.clear();
    added.clear();
    next.clear();
    tree.expand(view, growth);
    for (const Growth& one : growth) {
      const auto at = std::find(frontier.begin(), frontier.end(), one.parent) - frontier.begin();
      draw_children<Real>(draft, one.parent, one.children, std::span(&proposed[at], 1), uniforms, added);
    }
    tree.next_frontier(view, added, next);
    frontier.swap(next);
  }
  grown.nodes = draft.tree.size();
  std::vector<NodeId> kept;
  const GrowthView<Real> view{draft, frontier, proposed};
  if (law == DraftLaw::kDeterministic && draft.tree.size() > 1) tree.prune(view, kept);
  if (!kept.empty()) draft.tree.restrict_to(kept);
  return grown;
}

/// The texts of a tree's nodes, sorted.
inline std::vector<std::vector<TokenId>> texts_of(const TokenTree& tree) {
  std::vector<std::vector<TokenId>> texts;
  for (NodeId n = 1; n < tree.size(); ++n) texts.push_back(text_of(tree, n));
  std::sort(texts.begin(), texts.end());
  return texts;
}

/// A draft of `drafter` in the shape of `spec`.
inline Draft<float> grown(const std::string& spec, const TextRows& drafter = {},
                          DraftLaw law = DraftLaw::kDeterministic) {
  Draft<float> draft;
  grow_draft(*tree_policies().create(spec), drafter, draft, law);
  return draft;
}

/// The m likeliest texts, by trying all.
inline std::vector<std::vector<TokenId>> likeliest_texts(const TextRows& drafter, int depth, std::size_t m) {
  std::vector<std::pair<double, std::vector<TokenId>>> all;
  std::vector<std::pair<double, std::vector<TokenId>>> level = {{1.0, {}}};
  for (int d = 0; d < depth; ++d) {
    std::vector<std::pair<double, std::vector<TokenId>>> longer;
    for (const auto& [probability, text] : level) {
      const std::vector<double> row = drafter.after(text);
      for (TokenId x = 0; x < drafter.vocab; ++x) {
        longer.emplace_back(probability * row[x], text);
        longer.back().second.push_back(x);
      }
    }
    all.insert(all.end(), longer.begin(), longer.end());
    level = std::move(longer);
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::vector<TokenId>> texts;
  for (std::size_t i = 0; i < m; ++i) texts.push_back(all[i].second);
  std::sort(texts.begin(), texts.end());
  return texts;
}

/// Of a text after the root.
inline double path_probability(const TextRows& drafter, const std::vector<TokenId>& text) {
  double probability = 1.0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    probability *= drafter.after({text.begin(), text.begin() + static_cast<std::ptrdiff_t>(i)})[text[i]];
  }
  return probability;
}

}  // namespace specmoe::testing
