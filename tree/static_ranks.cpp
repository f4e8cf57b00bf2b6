#include <charconv>
#include <map>

#include "tree/static_shape.h"

namespace specmoe {
namespace {

/// Node lists of two papers, each node by the ranks on its path.
constexpr std::string_view kMedusa =
    "0,0/0,1,0/1,2,0/0/0,1/0,0/2,3,0/3,4,0/4,2/0,0/5,0/0/1,5,0/6,6,0/7,0/1/0,1/1,7,0/8,0/0/2,3/0,0/9,8,9,1/0/0,0/2/0,"
    "1/2,0/0/3,4/0,2/1,0/0/4,0/0/5,0/0/0/0,0/1/1,0/0/6,0/3/0,5/0,1/3,0/0/7,0/0/8,0/0/9,6/0,0/4/0,1/4,7/0,0/1/2,2/0/0,"
    "3/1,2/2,8/0,0/5/0,1/5,1/0/1,0/2/1,9/0,0/6/0";
constexpr std::string_view kEagle =
    "0,1,2,3,0/0,0/1,0/2,1/0,1/1,2/0,2/1,3/0,0/0/0,0/0/1,0/0/2,0/1/0,0/1/1,0/2/0,0/2/1,1/0/0,0/0/0/0,0/0/0/1,0/0/0/2,"
    "0/0/0/0/0,0/0/0/0/1";

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::vector<int> parse_path(const std::string& text) {
  std::vector<int> path;
  for (const std::string& part : split(text, '/')) {
    int rank = -1;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), rank);
    SPECMOE_CHECK(parsed.ec == std::errc() && parsed.ptr == part.data() + part.size() && rank >= 0,
                  "static_ranks: expected paths of ranks such as 0/2/1, got '", text, "'");
    path.push_back(rank);
  }
  return path;
}

/// A fixed list of nodes, each given by the ranks on its path from the root.
///
/// source  medusa: Cai et al. 2024, arXiv:2401.10774 (63 nodes); eagle: Li et al. 2024, arXiv:2401.15077 (25 nodes)
class StaticRanks : public StaticTopology {
 public:
  explicit StaticRanks(Params& params) : StaticTopology(DraftLaw::kDeterministic) {
    std::vector<std::string> paths = params.texts("paths", "nodes by ranks, such as 0, 1, 0/0, 0/1; none: the preset");
    const std::string preset = params.text("preset", "eagle", "medusa or eagle");
    law_ = law_param(params, DraftLaw::kDeterministic);
    SPECMOE_CHECK(preset == "medusa" || preset == "eagle", "static_ranks: preset must be medusa or eagle, got '",
                  preset, "'");
    if (paths.empty()) paths = split(preset == "medusa" ? kMedusa : kEagle, ',');
    build(paths);
    check_size(params, shape_);
  }

 private:
  void build(const std::vector<std::string>& texts) {
    std::vector<std::vector<int>> paths;
    for (const std::string& text : texts) paths.push_back(parse_path(text));
    std::stable_sort(paths.begin(), paths.end(),
                     [](const auto& a, const auto& b) { return a.size() != b.size() ? a.size() < b.size() : a < b; });
    std::map<std::vector<int>, int> index_of = {{{}, 0}};
    for (const std::vector<int>& path : paths) {
      const std::vector<int> parent(path.begin(), path.end() - 1);
      const auto found = index_of.find(parent);
      SPECMOE_CHECK(found != index_of.end(), "static_ranks: the node ", spell(path), " has no parent in the list");
      SPECMOE_CHECK(path.back() == shape_.child_count(found->second), "static_ranks: below ",
                    parent.empty() ? "the root" : spell(parent), ", expected the child of rank ",
                    shape_.child_count(found->second), " next, got ", path.back(),
                    "; ranks may neither repeat nor leave gaps");
      index_of[path] = shape_.add(found->second);
    }
  }
  static std::string spell(const std::vector<int>& path) {
    std::string text;
    for (int rank : path) {
      if (!text.empty()) text += '/';
      text += std::to_string(rank);
    }
    return text;
  }
};

SPECMOE_REGISTER(tree_policies(), "static_ranks", StaticRanks, "a fixed list of nodes by rank (Medusa, EAGLE)");

}  // namespace
}  // namespace specmoe
