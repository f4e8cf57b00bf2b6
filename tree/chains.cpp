#include "tree/static_shape.h"

namespace specmoe {
namespace {

/// k parallel continuations of gamma tokens that share only the root.
///
/// source  the k sequences of SpecTr, Sun et al. 2023, arXiv:2310.15141
class Chains : public StaticTopology {
 public:
  explicit Chains(Params& params) : StaticTopology(DraftLaw::kIid) {
    const int k = count_param(params, "k", 3, "parallel continuations", 1024);
    const int gamma = count_param(params, "gamma", 3, "tokens of each", 1024);
    law_ = law_param(params, DraftLaw::kIid);
    SPECMOE_CHECK(k * gamma < 4096, "chains: expected at most 4095 drafted nodes, got ", k * gamma);
    std::vector<int> ends(k);
    for (int& end : ends) end = shape_.add(0);
    for (int end : ends) shape_.add_path(end, gamma - 1);
  }
};

SPECMOE_REGISTER(tree_policies(), "chains", Chains, "k parallel chains of gamma tokens (SpecTr)");

}  // namespace
}  // namespace specmoe
