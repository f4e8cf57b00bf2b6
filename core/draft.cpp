#include "core/draft.h"

#include <array>

namespace specmoe {
namespace {

constexpr std::array<std::string_view, 5> kLawNames = {"deterministic", "iid", "without_replacement",
                                                       "top_plus_sampled", "multi_drafter"};

std::string known_laws() {
  std::string all;
  for (std::string_view name : kLawNames) all += (all.empty() ? "" : ", ") + std::string(name);
  return all;
}

}  // namespace

std::string_view law_name(DraftLaw law) { return kLawNames[static_cast<std::size_t>(law)]; }

DraftLaw law_from_name(std::string_view name) {
  for (std::size_t i = 0; i < kLawNames.size(); ++i) {
    if (kLawNames[i] == name) return static_cast<DraftLaw>(i);
  }
  fail("unknown draft law '", name, "'; known: ", known_laws());
}

std::string LawSet::to_string() const {
  std::string text;
  for (std::size_t i = 0; i < kLawNames.size(); ++i) {
    if (contains(static_cast<DraftLaw>(i))) text += (text.empty() ? "" : ", ") + std::string(kLawNames[i]);
  }
  return text.empty() ? "none" : text;
}

}  // namespace specmoe
