#include "core/acceptance.h"
#include "core/greedy_walk.h"

namespace specmoe {
namespace {

/// Keeps the path that the target's argmax would have written.
///
/// draft    any tree, any law
/// scores   only each visited row's argmax is read; ties go to the lowest id
/// source   Miao et al. 2024 (SpecInfer, VerifyGreedy), arXiv:2305.09781; differs: duplicate siblings count as one
class Greedy : public PolicyOf<Greedy> {
 public:
  explicit Greedy(Params&) {}
  LawSet lossless_laws() const override { return LawSet::all(); }
  std::optional<DeviceJudge> on_device(DraftLaw) const override { return DeviceJudge{DeviceRule::kGreedy}; }
  bool judges_trees() const override { return true; }
  bool samples() const override { return false; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>&, Verdict& verdict) const {
    check_draft(draft, target);
    greedy_walk(draft, target, verdict);
  }
};

SPECMOE_REGISTER(acceptance_policies(), "greedy", Greedy, "the target's argmax, temperature 0 only (SpecInfer)");

}  // namespace
}  // namespace specmoe
