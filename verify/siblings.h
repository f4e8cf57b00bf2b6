#pragma once

#include "core/draft.h"
#include "core/params.h"

namespace specmoe {

/// How a rule takes the children of a node to have been drawn.
///   as_drafted           by the law that the draft carries
///   independent          each from its own row, whatever its siblings were
///   without_replacement  each from what the earlier siblings left of its row
class SiblingLaw {
 public:
  explicit SiblingLaw(Params& params) {
    const std::string law = params.text("siblings", "as_drafted", "as_drafted, independent or without_replacement");
    SPECMOE_CHECK(law == "as_drafted" || law == "independent" || law == "without_replacement", params.name(),
                  ": siblings must be as_drafted, independent or without_replacement, got '", law, "'");
    follows_draft_ = law == "as_drafted";
    without_replacement_ = law == "without_replacement";
  }

  /// The laws it is right about. A child chosen without a row counts as drawn from a point mass.
  LawSet laws() const {
    if (follows_draft_) return LawSet::all();
    if (without_replacement_) {
      return {DraftLaw::kDeterministic, DraftLaw::kWithoutReplacement, DraftLaw::kTopPlusSampled};
    }
    return {DraftLaw::kDeterministic, DraftLaw::kIid, DraftLaw::kMultiDrafter};
  }
  bool without_replacement(DraftLaw law) const {
    if (!follows_draft_) return without_replacement_;
    return law == DraftLaw::kWithoutReplacement || law == DraftLaw::kTopPlusSampled;
  }

 private:
  bool follows_draft_ = true;
  bool without_replacement_ = false;
};

}  // namespace specmoe
