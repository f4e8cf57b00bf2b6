#include "core/nn/tokenizer_split.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/nn/tokenizer_json.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

struct Part {
  Span span;
  bool delimiter;
};

/// Covers [0, size) with the matches and what lies between them.
void cover(const std::vector<Span>& matches, std::uint32_t size, bool invert, std::vector<Part>& parts) {
  std::uint32_t done = 0;
  for (const Span match : matches) {
    if (match.begin != done) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done != size) parts.push_back({{done, size}, invert});
}

/// Joins each part to the one kept before it, where `joins` says so.
template <class Joins>
void join_forward(std::vector<Part>& parts, Joins joins) {
  std::size_t kept = 0;
  bool last_delimiter = false;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    if (kept > 0 && joins(part.delimiter, last_delimiter)) {
      parts[kept - 1].span.end = part.span.end;
    } else {
      parts[kept++] = part;
    }
    last_delimiter = part.delimiter;
  }
  parts.resize(kept);
}

/// A delimiter joins what follows it, unless that is a delimiter already joined the same way.
void join_next(std::vector<Part>& parts) {
  std::size_t kept = parts.size();
  bool last_delimiter = false;
  for (std::size_t i = parts.size(); i-- > 0;) {
    const Part part = parts[i];
    if (kept < parts.size() && part.delimiter && !last_delimiter) {
      parts[kept].span.begin = part.span.begin;
    } else {
      parts[--kept] = part;
    }
    last_delimiter = part.delimiter;
  }
  parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(kept));
}

void apply_behavior(std::vector<Part>& parts, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.delimiter; });
      return;
    case SplitBehavior::kContiguous:
      return join_forward(parts, [](bool delimiter, bool last) { return delimiter == last; });
    case SplitBehavior::kMergedWithPrevious:
      return join_forward(parts, [](bool delimiter, bool last) { return delimiter && !last; });
    case SplitBehavior::kMergedWithNext:
      return join_next(parts);
  }
}

}  // namespace

SplitBehavior split_behavior_from_name(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kNames{
      {{"Removed", SplitBehavior::kRemoved},
       {"Isolated", SplitBehavior::kIsolated},
       {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
       {"MergedWithNext", SplitBehavior::kMergedWithNext},
       {"Contiguous", SplitBehavior::kContiguous}}};
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return behavior;
  }
  fail("tokenizer.json: pre_tokenizer Split: behavior ", in_quotes(name),
       " is not one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

void split_pieces(Pieces& pieces, const Pattern& pattern, SplitBehavior behavior, bool invert) {
  std::vector<Span> result;
  result.reserve(pieces.pieces.size());
  std::vector<Span> matches;
  std::vector<Part> parts;
  for (const Span piece : pieces.pieces) {
    matches.clear();
    parts.clear();
    pattern.find_all(pieces.body.view(piece), matches);
    cover(matches, piece.end - piece.begin, invert, parts);
    apply_behavior(parts, behavior);
    for (const Part& part : parts) {
      if (!part.span.empty()) result.push_back({piece.begin + part.span.begin, piece.begin + part.span.end});
    }
  }
  pieces.pieces = std::move(result);
}

}  // namespace specmoe::nn
