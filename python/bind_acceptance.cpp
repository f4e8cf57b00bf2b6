#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/acceptance.h"
#include "python/values.h"

namespace specmoe::python {
namespace {

/// Checks what a policy written in Python returned: it is code of the user's, so nothing is taken on trust.
void read_verdict(const py::object& answer, const std::string& who, const TokenTree& tree, int vocab,
                  Verdict& verdict) {
  std::tie(verdict.accepted, verdict.next) =
      read_answer<std::pair<std::vector<NodeId>, TokenId>>(answer, who, "(accepted nodes, next token)");
  NodeId parent = TokenTree::kRoot;
  for (NodeId node : verdict.accepted) {
    SPECMOE_CHECK(node > TokenTree::kRoot && node < tree.size() && tree.parent(node) == parent, who,
                  ": accepted nodes must be a path down from the root; node ", node, " is not a child of ", parent);
    parent = node;
  }
  SPECMOE_CHECK(verdict.next >= 0 && verdict.next < vocab, who, ": expected a next token in [0, ", vocab, "), got ",
                verdict.next);
}

/// An AcceptancePolicy whose decisions are made in Python.
class PythonAcceptance final : public AcceptancePolicy, public py::trampoline_self_life_support {
 public:
  LawSet lossless_laws() const override {
    py::gil_scoped_acquire locked;
    LawSet laws;
    for (const auto& name : answer<std::vector<std::string>>("lossless_laws", "a list of str")) {
      laws.add(law_from_name(name));
    }
    return laws;
  }
  bool judges_trees() const override {
    py::gil_scoped_acquire locked;
    return answer<bool>("judges_trees", "a bool");
  }
  bool samples() const override {
    py::gil_scoped_acquire locked;
    return answer<bool>("samples", "a bool");
  }
  void judge(Draft<float>& draft, ProbRows<float>& target, UniformSource<double>& uniforms,
             Verdict& verdict) const override {
    judge_in_python(draft, target, uniforms, verdict);
  }
  void judge(Draft<double>& draft, ProbRows<double>& target, UniformSource<double>& uniforms,
             Verdict& verdict) const override {
    judge_in_python(draft, target, uniforms, verdict);
  }

 private:
  py::object ask(const char* name) const { return method<AcceptancePolicy>(this, name); }
  template <class Type>
  Type answer(const char* name, const char* wanted) const {
    return read_answer<Type>(ask(name)(), method_name<AcceptancePolicy>(this, name), wanted);
  }

  template <class Real>
  void judge_in_python(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<double>& uniforms,
                       Verdict& verdict) const {
    py::gil_scoped_acquire locked;
    const std::function<ProbRow<Real>(NodeId)> target_row = [&](NodeId n) {
      SPECMOE_CHECK(n >= 0 && n < draft.tree.size(), "target.row: expected a node in [0, ", draft.tree.size(),
                    "), got ", n);
      return target.row(n);
    };
    const Loan<LentDraft> lent_draft(draft);
    const Loan<LentRows> lent_target(target_row);
    const Loan<LentUniforms> lent_uniforms(uniforms);
    const py::object answer = ask("judge")(*lent_draft, *lent_target, *lent_uniforms);
    read_verdict(answer, method_name<AcceptancePolicy>(this, "judge"), draft.tree, target.vocab(), verdict);
  }
};

}  // namespace

void bind_acceptance(py::module_& m) {
  py::class_<AcceptancePolicy, PythonAcceptance, py::smart_holder>(
      m, "AcceptancePolicy",
      "Decides which path of a drafted tree is kept. Subclass it and define judge().\n\n"
      "A pure function of probability rows and uniforms: same arguments, same answer. What a subclass does not claim "
      "is\n"
      "not assumed: by default it is lossy and knows only chains.")
      .def(py::init<>())
      .def(
          "lossless_laws", [](const AcceptancePolicy&) { return std::vector<std::string>{}; },
          "Draft laws under which emitted text has exactly the target's distribution; [] for a lossy policy.")
      .def(
          "judges_trees", [](const AcceptancePolicy&) { return false; },
          "Whether it is defined on trees that branch, or on chains alone.")
      .def(
          "samples", [](const AcceptancePolicy&) { return true; }, "Whether it is defined above temperature 0.")
      .def(
          "judge",
          [](py::object self, const LentDraft&, const LentRows&, const LentUniforms&) -> py::tuple {
            must_define(self, "judge(draft, target, uniforms)");
          },
          py::arg("draft"), py::arg("target"), py::arg("uniforms"),
          "Returns (accepted, next): node ids from depth 1 down, and the extra token.\n\n"
          "draft     Draft: draft.tree, draft.law, draft.row(n)\n"
          "target    ProbRows: target.row(n) is the target's distribution after node n, root included\n"
          "uniforms  Uniforms: uniforms.uniform(node, 'accept', slot).less(numerator, denominator)\n"
          "They may only be used during the call.");
}

}  // namespace specmoe::python
