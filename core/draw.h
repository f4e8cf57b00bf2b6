#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/decide.h"
#include "core/draft.h"
#include "core/uniforms.h"

namespace specmoe {

/// The `count` likeliest tokens of a row outside the taken ones, likeliest first, ties to the lower id, never one of
/// probability 0. The result lives until the next call on this thread.
template <class Real>
std::span<const TokenId> likeliest_tokens(const ProbRow<Real>& row, int count, const Taken& taken = {}) {
  static thread_local std::vector<TokenId> best;
  best.clear();
  if (count <= 0) return best;
  if (row.is_point()) {
    if (!taken.contains(row.point_token())) best.push_back(row.point_token());
    return best;
  }
  const Real* values = row.dense().data();
  const auto size = static_cast<std::size_t>(count);
  for (TokenId x = 0; x < row.vocab(); ++x) {
    const Real& value = values[x];
    const bool full = best.size() == size;
    if (!(value > (full ? values[best.back()] : Real(0))) || taken.contains(x)) continue;
    if (full) best.pop_back();
    auto at = best.end();
    while (at != best.begin() && value > values[*(at - 1)]) --at;
    best.insert(at, x);
  }
  return best;
}

/// Calls add(token) for each of the `count` likeliest tokens outside siblings(). Devices have their own for their rows.
template <class Real, class Siblings, class Add>
void each_likeliest(const ProbRow<Real>& row, int count, const Siblings& siblings, const Add& add) {
  for (const TokenId token : likeliest_tokens(row, count, siblings())) add(token);
}

/// The children of one node while they are drawn. Draft, Uniforms: as the types of these names, or what stands for them
/// on a device.
template <class Draft, class Uniforms>
class ChildDrawing {
 public:
  SPECMOE_HD ChildDrawing(Draft& draft, NodeId parent, Uniforms& uniforms)
      : draft_(draft), parent_(parent), uniforms_(uniforms), slot_(draft.tree.child_count(parent)) {}

  SPECMOE_HD Taken siblings() const { return Taken::children_before(draft_, parent_, TokenTree::kNone); }

  /// Draws a child from a row, outside `taken`; false when nothing is left there.
  SPECMOE_HD bool draw(std::int32_t row, const Taken& taken) {
    const TokenId token = draw_from_row(draft_.rows.row(row), taken, uniforms_.at({parent_, Purpose::kDraft, slot_}));
    if (token >= 0) add(token, row);
    return token >= 0;
  }
  SPECMOE_HD void add_likeliest(std::int32_t row, int count) {
    each_likeliest(draft_.rows.row(row), count, [this] { return siblings(); }, [this](TokenId x) { add(x, -1); });
  }

 private:
  SPECMOE_HD void add(TokenId token, std::int32_t row) {
    draft_.add(parent_, token, row);
    ++slot_;
  }

  Draft& draft_;
  NodeId parent_;
  Uniforms& uniforms_;
  std::int32_t slot_;
};

/// Draws `count` children by a law, as draw_children() says. Drawing: a ChildDrawing.
template <class Drawing>
SPECMOE_HD void draw_by_law(DraftLaw law, int count, std::span<const std::int32_t> rows, Drawing& drawing) {
  const auto row_for = [rows](int child) { return rows[static_cast<std::size_t>(child) % rows.size()]; };
  switch (law) {
    case DraftLaw::kDeterministic:
      if (rows.size() == 1) return drawing.add_likeliest(rows[0], count);
      for (int i = 0; i < count; ++i) drawing.add_likeliest(row_for(i), 1);
      return;
    case DraftLaw::kIid:
      for (int i = 0; i < count; ++i) drawing.draw(rows[0], Taken{});
      return;
    case DraftLaw::kWithoutReplacement:
      for (int i = 0; i < count && drawing.draw(rows[0], drawing.siblings()); ++i) {
      }
      return;
    case DraftLaw::kTopPlusSampled:
      drawing.add_likeliest(rows[0], count - 1);
      drawing.draw(rows[0], drawing.siblings());
      return;
    case DraftLaw::kMultiDrafter:
      for (int i = 0; i < count; ++i) drawing.draw(row_for(i), Taken{});
      return;
  }
}

/// Adds up to `count` children below `parent` by the draft's law and appends them to `added`.
///
/// rows      what the drafter proposes after `parent`, as indices into draft.rows: one, or one per merged drafter
/// uniforms  (parent, kDraft, index of the child among its siblings)
/// Fewer children come when a row has no more tokens of positive probability. A second call for the same parent goes on
/// behind the children it has.
template <class Real>
void draw_children(Draft<Real>& draft, NodeId parent, int count, std::span<const std::int32_t> rows,
                   UniformSource<Wide<Real>>& uniforms, std::vector<NodeId>& added) {
  if (count <= 0 || rows.empty()) return;
  const NodeId first = draft.tree.size();
  ChildDrawing drawing(draft, parent, uniforms);
  draw_by_law(draft.law, count, rows, drawing);
  for (NodeId node = first; node < draft.tree.size(); ++node) added.push_back(node);
}

}  // namespace specmoe
