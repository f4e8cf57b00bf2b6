#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/decide.h"
#include "python/values.h"

namespace specmoe::python {
namespace {

NodeId checked(const TokenTree& tree, NodeId n) {
  SPECMOE_CHECK(n >= 0 && n < tree.size(), "node: expected one of [0, ", tree.size(), "), got ", n);
  return n;
}

std::vector<NodeId> children(const TokenTree& tree, NodeId n) {
  std::vector<NodeId> all;
  for (NodeId c = tree.first_child(checked(tree, n)); c != TokenTree::kNone; c = tree.next_sibling(c)) all.push_back(c);
  return all;
}

std::vector<NodeId> path(const TokenTree& tree, NodeId n) {
  std::vector<NodeId> nodes;
  for (checked(tree, n); n != TokenTree::kRoot; n = tree.parent(n)) nodes.push_back(n);
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

Purpose purpose_from_name(const std::string& name) {
  constexpr std::array<std::pair<const char*, Purpose>, 4> kKnown = {{{"draft", Purpose::kDraft},
                                                                      {"accept", Purpose::kAccept},
                                                                      {"next", Purpose::kNext},
                                                                      {"plugin", Purpose::kPlugin}}};
  for (const auto& [known, purpose] : kKnown) {
    if (name == known) return purpose;
  }
  fail("purpose: expected draft, accept, next or plugin, got '", name, "'");
}

using Weights = py::array_t<double, py::array::c_style | py::array::forcecast>;

/// Draws like the built-in policies do: sums in one fixed order, comparisons only.
TokenId choose(const LentUniform& uniform, const Weights& weights) {
  SPECMOE_CHECK(weights.ndim() == 1, "choose: expected weights [V], got ", weights.ndim(), " dimensions");
  const int count = static_cast<int>(weights.size());
  const double* values = weights.data();
  for (int x = 0; x < count; ++x) {
    SPECMOE_CHECK(values[x] >= 0 && std::isfinite(values[x]), "choose: weight ", x, " is ", values[x],
                  "; weights are finite and at least 0");
  }
  const auto term = [values](TokenId x) { return values[x]; };
  const TokenId drawn = draw_token(count, term, sum_terms<double>(count, term), Taken{}, uniform);
  SPECMOE_CHECK(drawn >= 0, "choose: expected a weight above 0 among ", count);
  return drawn;
}

}  // namespace

void bind_values(py::module_& m) {
  py::class_<TokenTree>(m, "TokenTree",
                        "A drafted token tree. Node 0, the root, is the last emitted token; parents[n] < n for every "
                        "other node; siblings keep the order in which they were drawn, duplicates included.")
      .def("__len__", &TokenTree::size)
      .def_property_readonly(
          "tokens", [](py::object self) { return view(self.cast<const TokenTree&>().tokens(), self); },
          "Token of each node: int32 [N].")
      .def_property_readonly(
          "parents", [](py::object self) { return view(self.cast<const TokenTree&>().parents(), self); },
          "Parent of each node: int32 [N]; -1 for the root.")
      .def_property_readonly("max_depth", &TokenTree::max_depth, "Depth of the deepest node; the root has depth 0.")
      .def(
          "depth", [](const TokenTree& self, NodeId node) { return self.depth(checked(self, node)); }, py::arg("node"),
          "Edges between a node and the root.")
      .def("children", &children, py::arg("node"), "Children of a node in the order in which they were drawn.")
      .def("path", &path, py::arg("node"), "Nodes from below the root down to a node, itself included.")
      .def(
          "path_tokens",
          [](const TokenTree& self, NodeId node) {
            std::vector<TokenId> tokens;
            for (NodeId n : path(self, node)) tokens.push_back(self.token(n));
            return tokens;
          },
          py::arg("node"), "Tokens of path(node).")
      .def("__repr__", [](const TokenTree& self) {
        return concat("<specmoe.TokenTree: ", self.size(), " nodes, depth ", self.max_depth(), ">");
      });

  py::class_<LentDraft, std::shared_ptr<LentDraft>>(m, "Draft", "A drafted tree and how its children were drawn.")
      .def_readonly("tree", &LentDraft::tree, "The TokenTree; a copy, so it may be kept.")
      .def_readonly("law", &LentDraft::law, "How the children of every node were drawn: 'iid', 'deterministic', …")
      .def(
          "row", [](const LentDraft& self, NodeId node) { return self.rows.row(node); }, py::arg("node"),
          "The row that a node's own token was drawn from: float64 [V]. A point mass when it was not drawn.");

  py::class_<LentRows, std::shared_ptr<LentRows>>(m, "ProbRows",
                                                  "Probability rows by node; each is made when asked for.")
      .def("row", &LentRows::row, py::arg("node"),
           "The target's distribution after a node: float64 [V], an array of the caller's own.\n\n"
           "After penalties, temperature, top-k, top-p and min-p. Ask only for the rows that are needed: each is "
           "computed "
           "here.");

  py::class_<LentUniform>(m, "Uniform",
                          "A uniform of [0, 1) that can only be compared, so that a proof may follow both outcomes.")
      .def(
          "less",
          [](const LentUniform& self, double numerator, double denominator) {
            SPECMOE_CHECK(denominator > 0, "less: the denominator must be above 0, got ", denominator);
            SPECMOE_CHECK(!std::isnan(numerator), "less: the numerator is no number");
            return self.less(numerator, denominator);
          },
          py::arg("numerator"), py::arg("denominator") = 1.0,
          "Whether u < numerator / denominator. Strict, so nothing of probability 0 is ever accepted.")
      .def("choose", &choose, py::arg("weights"),
           "An index drawn in proportion to weights [V], which need not sum to 1.\n\n"
           "raises  Error when a weight is negative or no number, or all are 0");

  py::class_<LentUniforms, std::shared_ptr<LentUniforms>>(
      m, "Uniforms", "The uniforms of one step of one sequence, by address: the same address is the same number.")
      .def(
          "uniform",
          [](const std::shared_ptr<LentUniforms>& self, NodeId node, const std::string& purpose, int slot) {
            return LentUniform{self, self->at({node, purpose_from_name(purpose), slot})};
          },
          py::arg("node"), py::arg("purpose"), py::arg("slot") = UniformAddress{}.slot,
          "The Uniform of a node for one purpose.\n\n"
          "purpose  'accept' (keep a drafted token), 'next' (draw the extra token), 'plugin' (anything else)\n"
          "slot     tells apart several uniforms of one node and purpose, such as one per child tested");
}

}  // namespace specmoe::python
