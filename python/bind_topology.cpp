#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/tree_policy.h"
#include "python/values.h"

namespace specmoe::python {
namespace {

/// GrowthView for one call.
struct LentGrowth {
  TokenTree tree;
  std::string law;
  std::vector<NodeId> frontier;
  std::vector<std::int32_t> frontier_rows;
  LentRows rows;

  template <class Real>
  explicit LentGrowth(const GrowthView<Real>& view)
      : tree(view.draft.tree),
        law(law_name(view.draft.law)),
        frontier(view.frontier.begin(), view.frontier.end()),
        frontier_rows(view.frontier_rows.begin(), view.frontier_rows.end()),
        rows(std::function<ProbRow<Real>(NodeId)>([&draft = view.draft](NodeId row) { return draft.rows.row(row); })) {}
  void end() { rows.end(); }

  py::object row(NodeId node) const {
    const auto found = std::find(frontier.begin(), frontier.end(), node);
    SPECMOE_CHECK(found != frontier.end(), "view.row: node ", node, " is not in the frontier");
    const auto index = static_cast<std::size_t>(found - frontier.begin());
    if (index >= frontier_rows.size() || frontier_rows[index] < 0) return py::none();
    return rows.row(frontier_rows[index]);
  }
};

/// A TreePolicy whose shape is decided in Python.
class PythonTopology final : public TreePolicy, public py::trampoline_self_life_support {
 public:
  DraftLaw law() const override { return law_from_name(answer<std::string>("law", "a str")); }
  int max_nodes() const override { return answer<int>("max_nodes", "an int"); }
  int max_grown_nodes() const override { return answer<int>("max_grown_nodes", "an int"); }
  int max_depth() const override { return answer<int>("max_depth", "an int"); }
  bool branches() const override { return answer<bool>("branches", "a bool"); }

  void expand(const GrowthView<float>& view, std::vector<Growth>& growth) const override { expand_in(view, growth); }
  void expand(const GrowthView<double>& view, std::vector<Growth>& growth) const override { expand_in(view, growth); }
  void next_frontier(const GrowthView<float>& view, std::span<const NodeId> added,
                     std::vector<NodeId>& frontier) const override {
    next_frontier_in(view, added, frontier);
  }
  void next_frontier(const GrowthView<double>& view, std::span<const NodeId> added,
                     std::vector<NodeId>& frontier) const override {
    next_frontier_in(view, added, frontier);
  }
  void prune(const GrowthView<float>& view, std::vector<NodeId>& kept) const override { prune_in(view, kept); }
  void prune(const GrowthView<double>& view, std::vector<NodeId>& kept) const override { prune_in(view, kept); }

 private:
  py::object ask(const char* name) const { return method<TreePolicy>(this, name); }
  std::string who(const char* name) const { return method_name<TreePolicy>(this, name); }

  template <class Type>
  Type answer(const char* name, const char* wanted) const {
    py::gil_scoped_acquire locked;
    return read_answer<Type>(ask(name)(), who(name), wanted);
  }

  template <class Real>
  void expand_in(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    py::gil_scoped_acquire locked;
    const Loan<LentGrowth> lent(view);
    const auto pairs = read_answer<std::vector<std::pair<NodeId, int>>>(ask("expand")(*lent), who("expand"),
                                                                        "[(parent, children), …]");
    std::int64_t nodes = view.draft.tree.size();
    for (const auto& [parent, children] : pairs) {
      SPECMOE_CHECK(std::ranges::find(view.frontier, parent) != view.frontier.end(), who("expand"), ": node ", parent,
                    " is not in the frontier");
      SPECMOE_CHECK(children >= 0, who("expand"), ": ", children, " children of node ", parent);
      nodes += children;
      growth.push_back({parent, children});
    }
    const int most = max_grown_nodes();
    SPECMOE_CHECK(nodes <= most, who("expand"), ": the tree would have ", nodes, " nodes, at most ", most,
                  " were announced by max_nodes()");
  }

  template <class Real>
  void next_frontier_in(const GrowthView<Real>& view, std::span<const NodeId> added,
                        std::vector<NodeId>& frontier) const {
    py::gil_scoped_acquire locked;
    const Loan<LentGrowth> lent(view);
    const std::vector<NodeId> nodes(added.begin(), added.end());
    const py::object wanted = ask("next_frontier")(*lent, nodes);
    for (NodeId node : read_answer<std::vector<NodeId>>(wanted, who("next_frontier"), "a list of node ids")) {
      SPECMOE_CHECK(std::ranges::find(added, node) != added.end(), who("next_frontier"), ": node ", node,
                    " was not just added");
      frontier.push_back(node);
    }
  }

  template <class Real>
  void prune_in(const GrowthView<Real>& view, std::vector<NodeId>& kept) const {
    py::gil_scoped_acquire locked;
    const Loan<LentGrowth> lent(view);
    const py::object wanted = ask("prune")(*lent);
    if (wanted.is_none()) return;
    kept = read_answer<std::vector<NodeId>>(wanted, who("prune"), "a list of node ids or None");
  }
};

}  // namespace

void bind_topology(py::module_& m) {
  py::class_<LentGrowth, std::shared_ptr<LentGrowth>>(m, "GrowthView",
                                                      "What a topology may look at: the tree so far and the rows "
                                                      "proposed for its frontier. The tokens that its answer\n"
                                                      "adds are drawn afterwards, so it cannot depend on them.")
      .def_readonly("tree", &LentGrowth::tree, "The TokenTree so far.")
      .def_readonly("law", &LentGrowth::law, "How children will be drawn.")
      .def_readonly("frontier", &LentGrowth::frontier, "Nodes the drafter was just asked about.")
      .def("row", &LentGrowth::row, py::arg("node"),
           "The row proposed for a frontier node: float64 [V]; None when the drafter gave tokens, or nothing.");

  py::class_<TreePolicy, PythonTopology, py::smart_holder>(
      m, "TreePolicy", "The shape of the drafted tree. Subclass it and define max_nodes(), max_depth() and expand().")
      .def(py::init<>())
      .def(
          "law", [](const TreePolicy&) { return std::string(law_name(DraftLaw::kIid)); },
          "How children are drawn when the drafter proposes rows and the temperature is above 0: 'iid', …")
      .def(
          "max_nodes", [](py::object self) -> int { must_define(self, "max_nodes()"); },
          "Most nodes of a tree, root included.")
      .def(
          "max_grown_nodes", [](const TreePolicy& self) { return self.max_nodes(); },
          "Most nodes while growing, before prune(); by default max_nodes().")
      .def(
          "max_depth", [](py::object self) -> int { must_define(self, "max_depth()"); }, "Depth of the deepest node.")
      .def(
          "branches", [](const TreePolicy&) { return true; }, "Whether any node may get several children.")
      .def(
          "expand", [](py::object self, const LentGrowth&) -> py::list { must_define(self, "expand(view)"); },
          py::arg("view"),
          "Returns [(parent, children), …]: how many children frontier nodes get. Called level by level.")
      .def(
          "next_frontier",
          [](const TreePolicy& self, const LentGrowth& view, const std::vector<NodeId>& added) {
            std::vector<NodeId> frontier;
            for (NodeId node : added) {
              if (view.tree.depth(node) < self.max_depth()) frontier.push_back(node);
            }
            return frontier;
          },
          py::arg("view"), py::arg("added"),
          "Which of the nodes just added the drafter is asked about next; by default all above max_depth().")
      .def(
          "prune", [](const TreePolicy&, const LentGrowth&) { return py::none(); }, py::arg("view"),
          "Which nodes of the grown tree are kept, ascending; None: all. Only called for deterministic drafts.");
}

}  // namespace specmoe::python
