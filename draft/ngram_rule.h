#pragma once

#include "core/drafter.h"
#include "kernels/host_device.h"

namespace specmoe {

/// Which tokens prompt lookup proposes after `suffix`, the last tokens of a path: see draft/ngram.cpp.
///
/// Text, Suffix  size() and operator[]
/// Found         size(), contains(token) and add(token); empty when it comes
/// Team          last_where(end, condition): the largest index below `end` for which it holds, -1 if there is none
template <class Team, class Text, class Suffix, class Found>
SPECMOE_HD void ngram_rule(const Text& text, const Suffix& suffix, const NgramRule& rule, Found& found) {
  const int known = static_cast<int>(suffix.size());
  for (int n = known < rule.max_n ? known : rule.max_n; n >= rule.min_n; --n) {
    const auto tells_something_new = [&](int begin) {
      for (int i = 0; i < n; ++i) {
        if (suffix[known - n + i] != text[begin + i]) return false;
      }
      return !found.contains(text[begin + n]);
    };
    // The token after a match must exist, so a match ends before the last token of the text.
    int begin = Team::last_where(static_cast<int>(text.size()) - n, tells_something_new);
    while (begin >= 0) {
      found.add(text[begin + n]);
      if (found.size() == rule.choices) return;
      begin = Team::last_where(begin, tells_something_new);
    }
  }
}

}  // namespace specmoe
