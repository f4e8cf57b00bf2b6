#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/device_rule.h"
#include "core/draft.h"
#include "core/prob_rows.h"
#include "core/rational.h"
#include "core/registry.h"
#include "core/uniforms.h"

namespace specmoe {

/// accepted  nodes kept, root excluded, from depth 1 down
/// next      the extra token: bonus after a fully accepted path, else drawn from the residual
struct Verdict {
  std::vector<NodeId> accepted;
  TokenId next = 0;
};

/// Decides which path of a drafted tree is kept. A pure function of probability rows and uniforms.
///
/// judge     target row n is the target's distribution after node n, for every node of the tree, root included
/// throws    Error when the tree's shape or law is outside the policy's definition, or a row is no distribution
class AcceptancePolicy {
 public:
  virtual ~AcceptancePolicy() = default;

  /// Draft laws for which the emitted text has exactly the target's distribution; empty for a lossy policy.
  virtual LawSet lossless_laws() const = 0;
  bool lossless() const { return !lossless_laws().empty(); }
  /// Whether the policy is defined on trees that branch, or on chains alone.
  virtual bool judges_trees() const = 0;
  /// Whether it is defined above temperature 0. A policy that only follows the argmax is not.
  virtual bool samples() const { return true; }
  /// The same decisions on a device, for drafts of this law; nothing when only the CPU makes them.
  virtual std::optional<DeviceJudge> on_device(DraftLaw /*law*/) const { return std::nullopt; }

  virtual void judge(Draft<float>& draft, ProbRows<float>& target, UniformSource<double>& uniforms,
                     Verdict& verdict) const = 0;
  /// The same decisions on double rows: what the prover enumerates.
  virtual void judge(Draft<double>& draft, ProbRows<double>& target, UniformSource<double>& uniforms,
                     Verdict& verdict) const = 0;
  /// The same decisions in exact fractions. Throws Error unless the policy has them, as every PolicyOf does.
  virtual void judge(Draft<Rational>& draft, ProbRows<Rational>& target, UniformSource<Rational>& uniforms,
                     Verdict& verdict) const;
};

/// Gives a rule that is written once, as a template over the row type, the judge() functions of the contract:
///
///     class Token : public PolicyOf<Token> {
///      public:
///       explicit Token(Params&) {}
///       LawSet lossless_laws() const override { ... }
///       template <class Real>
///       void decide(Draft<Real>&, ProbRows<Real>& target, UniformSource<Wide<Real>>&, Verdict&) const { ... }
///     };
///     SPECMOE_REGISTER(acceptance_policies(), "token", Token, "one line on what it does (paper)");
template <class Rule>
class PolicyOf : public AcceptancePolicy {
 public:
  void judge(Draft<float>& draft, ProbRows<float>& target, UniformSource<double>& uniforms,
             Verdict& verdict) const override {
    static_cast<const Rule*>(this)->decide(draft, target, uniforms, verdict);
  }
  void judge(Draft<double>& draft, ProbRows<double>& target, UniformSource<double>& uniforms,
             Verdict& verdict) const override {
    static_cast<const Rule*>(this)->decide(draft, target, uniforms, verdict);
  }
  void judge(Draft<Rational>& draft, ProbRows<Rational>& target, UniformSource<Rational>& uniforms,
             Verdict& verdict) const override {
    static_cast<const Rule*>(this)->decide(draft, target, uniforms, verdict);
  }
};

Registry<AcceptancePolicy>& acceptance_policies();

}  // namespace specmoe
