#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/prob_rows.h"
#include "core/token_tree.h"

namespace specmoe {

/// How the children of a node were drawn. Travels with the draft; a policy is lossless only for the laws it declares.
///   kDeterministic       any function of the text so far: the k likeliest, an n-gram's continuation
///   kIid                 k independent draws from one row
///   kWithoutReplacement  k draws from one row, each from what the earlier ones left; order matters
///   kTopPlusSampled      the k - 1 likeliest, then one draw from the rest of the row
///   kMultiDrafter        child i drawn from drafter i's row, independently
enum class DraftLaw : std::uint8_t { kDeterministic, kIid, kWithoutReplacement, kTopPlusSampled, kMultiDrafter };

std::string_view law_name(DraftLaw law);
/// Throws Error naming the known laws.
DraftLaw law_from_name(std::string_view name);

/// The laws that a policy is exact for.
class LawSet {
 public:
  LawSet() = default;
  LawSet(std::initializer_list<DraftLaw> laws) {
    for (DraftLaw law : laws) bits_ |= bit(law);
  }
  static LawSet all() {
    return {DraftLaw::kDeterministic, DraftLaw::kIid, DraftLaw::kWithoutReplacement, DraftLaw::kTopPlusSampled,
            DraftLaw::kMultiDrafter};
  }
  void add(DraftLaw law) { bits_ |= bit(law); }
  bool contains(DraftLaw law) const { return (bits_ & bit(law)) != 0; }
  bool empty() const { return bits_ == 0; }
  std::string to_string() const;

 private:
  static std::uint8_t bit(DraftLaw law) { return static_cast<std::uint8_t>(1U << static_cast<unsigned>(law)); }
  std::uint8_t bits_ = 0;
};

/// What a topology writes down about a node while the tree grows.
struct NodeNote {
  double score = 0.0;
  std::uint8_t flag = 0;
};

/// A drafted tree and how it came about.
///
/// law    the law of every group of children in the tree
/// rows   the probability rows that children were drawn from
/// row_of [tree.size()] index into rows of the row that node n itself was drawn from (before any earlier sibling was
///        taken out of it), -1 for the root and for nodes of a deterministic draft
/// notes  [nodes grown] the topology's own
/// memory the topology's own from step to step of one sequence; empty at first, and reset() leaves it alone
template <class Real>
struct Draft {
  using Row = ProbRow<Real>;

  TokenTree tree;
  DraftLaw law = DraftLaw::kDeterministic;
  StoredRows<Real> rows;
  std::vector<std::int32_t> row_of;
  std::vector<NodeNote> notes;
  std::vector<double> memory;

  /// The row that node n was drawn from; a point mass on its own token when it was chosen deterministically.
  ProbRow<Real> row(NodeId n) {
    if (row_of[n] < 0) return ProbRow<Real>::point(tree.token(n), rows.vocab());
    return rows.row(row_of[n]);
  }
  void reset(TokenId root_token, int vocab) {
    tree.reset(root_token);
    rows.reset(vocab);
    row_of.assign(1, -1);
    notes.assign(1, NodeNote{});
  }
  NodeId add(NodeId parent, TokenId token, std::int32_t drawn_from) {
    row_of.push_back(drawn_from);
    notes.emplace_back();
    return tree.add(parent, token);
  }
};

}  // namespace specmoe
