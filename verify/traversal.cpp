#include <algorithm>

#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "core/residual.h"
#include "verify/child_rows.h"
#include "verify/siblings.h"

namespace specmoe {
namespace {

/// Block verification on a tree, from the leaves up: a node is given up only after all that hangs below it was, and
/// what a rejected subtree leaves of the target's mass is offered to its siblings, then to the node itself.
///
/// O(rejected nodes * V) time, O(depth) scratch.
template <class Real>
class Traversal {
 public:
  using W = Wide<Real>;

  Traversal(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<W>& uniforms, Verdict& verdict,
            bool without_replacement)
      : draft_(draft),
        target_(target),
        uniforms_(uniforms),
        verdict_(verdict),
        without_replacement_(without_replacement) {}

  void run() { visit(TokenTree::kRoot, W(1)); }

 private:
  /// Whether the text that ends in `node`, or a longer one below it, is accepted; `weight` is the probability with
  /// which the text may be accepted given that it was drafted. The root's stays 1.
  bool visit(NodeId node, W weight) {
    if (!(weight > W(0))) return false;
    const ProbRow<Real> row = target_.row(node);
    check_row(row, "target row", node);
    check_child_rows(draft_, node);
    Residual residual(draft_, node, row, without_replacement_);
    for (NodeId child = draft_.tree.first_child(node); child != TokenTree::kNone;
         child = draft_.tree.next_sibling(child)) {
      const auto [p, q] = residual.ratio(child);
      if (visit(child, std::min(W(1), W(weight * p / q)))) return true;
      const W rest = residual.reject(child, weight);
      const W norm = rest + (W(1) - weight);
      weight = norm > W(0) ? W(rest / norm) : W(1);
    }
    if (!uniforms_.at({node, Purpose::kAccept, 0}).less(weight)) return false;
    accept_path(draft_.tree, node, verdict_);
    verdict_.next = residual.draw(uniforms_.at({node, Purpose::kNext, 0}));
    return true;
  }

  Draft<Real>& draft_;
  ProbRows<Real>& target_;
  UniformSource<W>& uniforms_;
  Verdict& verdict_;
  bool without_replacement_;
};

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
