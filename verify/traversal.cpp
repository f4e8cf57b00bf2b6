#include "verify/traverse.h"

namespace specmoe {
namespace {

/// Block verification on a tree: see Traversal.
///
/// draft    any tree
/// scores   target_probs of every node that can still be accepted, leaves first
/// returns  accepted path and the recovered or bonus token; O(rejected nodes * V) time
/// source   Weng et al. 2025 (traversal verification), arXiv:2505.12398; differs: the recursion is our own, proved by
///          enumeration for every draft law
class TraversalPolicy : public PolicyOf<TraversalPolicy> {
 public:
  explicit TraversalPolicy(Params& params) : siblings_(params) {}
  LawSet lossless_laws() const override { return siblings_.laws(); }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    Traversal<Real>(draft, target, uniforms, verdict, siblings_.without_replacement(draft.law)).run();
  }

 private:
  SiblingLaw siblings_;
};

SPECMOE_REGISTER(acceptance_policies(), "traversal", TraversalPolicy,
                 "block verification on trees, leaves first (traversal verification)");

}  // namespace
}  // namespace specmoe
