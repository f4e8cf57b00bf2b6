#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/tree_policy.h"

namespace specmoe {

/// Gives a topology that is written once, as templates over the row type, the functions of the contract:
///
///     class Chain : public TopologyOf<Chain> {
///       template <class Real>
///       void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const { ... }
///     };
///
/// One that chooses its frontier, prunes or learns adds `choose_frontier` (as next_frontier), `keep` (as prune) or
/// `learn` (as observe).
template <class Shape>
class TopologyOf : public TreePolicy {
 public:
  void expand(const GrowthView<float>& view, std::vector<Growth>& growth) const override { shape().grow(view, growth); }
  void expand(const GrowthView<double>& view, std::vector<Growth>& growth) const override {
    shape().grow(view, growth);
  }
  void next_frontier(const GrowthView<float>& view, std::span<const NodeId> added,
                     std::vector<NodeId>& frontier) const override {
    choose(view, added, frontier);
  }
  void next_frontier(const GrowthView<double>& view, std::span<const NodeId> added,
                     std::vector<NodeId>& frontier) const override {
    choose(view, added, frontier);
  }
  void prune(const GrowthView<float>& view, std::vector<NodeId>& kept) const override { cut(view, kept); }
  void prune(const GrowthView<double>& view, std::vector<NodeId>& kept) const override { cut(view, kept); }
  void observe(Draft<float>& draft, int accepted) const override { tell(draft, accepted); }
  void observe(Draft<double>& draft, int accepted) const override { tell(draft, accepted); }

 private:
  const Shape& shape() const { return static_cast<const Shape&>(*this); }

  template <class Real>
  void choose(const GrowthView<Real>& view, std::span<const NodeId> added, std::vector<NodeId>& frontier) const {
    if constexpr (requires { shape().choose_frontier(view, added, frontier); }) {
      shape().choose_frontier(view, added, frontier);
    } else {
      TreePolicy::next_frontier(view, added, frontier);
    }
  }
  template <class Real>
  void cut(const GrowthView<Real>& view, std::vector<NodeId>& kept) const {
    if constexpr (requires { shape().keep(view, kept); }) shape().keep(view, kept);
  }
  template <class Real>
  void tell(Draft<Real>& draft, int accepted) const {
    if constexpr (requires { shape().learn(draft, accepted); }) shape().learn(draft, accepted);
  }
};

}  // namespace specmoe
