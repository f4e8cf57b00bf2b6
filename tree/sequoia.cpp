#include <charconv>

#include "tree/sequoia_dp.h"

namespace specmoe {
namespace {

double parse_number(const std::string& text, const char* what) {
  double value = 0.0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  SPECMOE_CHECK(parsed.ec == std::errc() && parsed.ptr == text.data() + text.size(), "sequoia: expected ", what,
                ", got '", text, "'");
  return value;
}

/// The best fixed tree for measured acceptance rates by rank; with measured times, also of the best size.
///
/// source  Chen et al. 2024 (Sequoia), arXiv:2402.12374
class Sequoia : public StaticTopology {
 public:
  explicit Sequoia(Params& params) : StaticTopology(DraftLaw::kWithoutReplacement) {
    const std::vector<std::string> given = params.texts(
        "rates", "probability that the child of rank 1, 2, .. is the accepted one; none: .6, .16, .07, ..");
    int nodes = count_param(params, "nodes", 32, "most nodes, root included", 256);
    int depth = count_param(params, "depth", 8, "most tokens on a path", 32);
    const double draft_time = params.real("draft_time", 0.0, "time of one drafter pass, in the unit of verify_times");
    const std::string times = params.text("verify_times", "",
                                          "measured nodes:time pairs such as 1:10/16:12/64:20; "
                                          "then nodes and depth are only upper limits");
    law_ = law_param(params, DraftLaw::kWithoutReplacement);
    const SequoiaTable table(parse_rates(given), nodes, depth);
    if (!times.empty()) std::tie(nodes, depth) = table.fastest(draft_time, VerifyTimes(params.name(), times));
    while (nodes > 1 && !(table.expected(nodes, depth) > 0.0)) --nodes;
    shape_ = table.shape(nodes, depth);
  }

 private:
  static std::vector<double> parse_rates(const std::vector<std::string>& texts) {
    std::vector<double> rates;
    double sum = 0.0;
    for (const std::string& text : texts) {
      rates.push_back(parse_number(text, "acceptance rates between 0 and 1"));
      SPECMOE_CHECK(rates.back() > 0.0 && rates.back() <= 1.0, "sequoia: rates must lie between 0 and 1, got ", text);
      sum += rates.back();
    }
    SPECMOE_CHECK(sum <= 1.0 + 1e-9, "sequoia: rates must sum to at most 1, got ", sum);
    SPECMOE_CHECK(rates.size() <= 64, "sequoia: expected at most 64 rates, got ", rates.size());
    if (rates.empty()) rates = {0.6, 0.16, 0.07, 0.04, 0.025, 0.02, 0.015, 0.01};
    return rates;
  }
};

SPECMOE_REGISTER(tree_policies(), "sequoia", Sequoia, "the best fixed tree for measured acceptance rates (Sequoia)");

}  // namespace
}  // namespace specmoe
