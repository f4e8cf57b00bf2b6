#include "tree/static_shape.h"

namespace specmoe {
namespace {

/// One path of `trunk` tokens, then `k` branches of `branch` tokens each: it branches where the draft is least sure.
///
/// source  delayed tree expansion, arXiv:2602.16994
class Delayed : public StaticTopology {
 public:
  explicit Delayed(Params& params) : StaticTopology(DraftLaw::kIid) {
    const int trunk = count_param(params, "trunk", 2, "tokens before it branches", 1024);
    const int k = count_param(params, "k", 2, "branches", 1024);
    const int branch = count_param(params, "branch", 2, "tokens of each branch", 1024);
    law_ = law_param(params, DraftLaw::kIid);
    SPECMOE_CHECK(trunk + k * branch < 4096, "delayed: expected at most 4095 drafted nodes, got ", trunk + k * branch);
    const int fork = shape_.add_path(0, trunk);
    std::vector<int> ends(k);
    for (int& end : ends) end = shape_.add(fork);
    for (int end : ends) shape_.add_path(end, branch - 1);
  }
};

SPECMOE_REGISTER(tree_policies(), "delayed", Delayed, "one path, then k branches (delayed expansion)");

}  // namespace
}  // namespace specmoe
