#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "core/prover.h"
#include "python/part.h"
#include "python/signal_poll.h"

namespace specmoe::python {
namespace {

using Matrix = std::vector<std::vector<double>>;

std::vector<ProofModels> models_for(const std::optional<Matrix>& target, const std::optional<Matrix>& draft) {
  if (!target && !draft) return builtin_proof_models();
  SPECMOE_CHECK(target && draft, "prove: give target and draft together, or neither");
  return {given_proof_models(*target, *draft)};
}

ProofReport prove_plugin(const py::object& policy, const std::string& law, const py::object& tree,
                         const std::optional<Matrix>& target, const std::optional<Matrix>& draft, int rounds,
                         int length) {
  const Part<AcceptancePolicy> judged(policy, "policy");
  Part<TreePolicy> shape(tree, "tree");
  const DraftLaw draft_law = law_from_name(law);
  const std::vector<ProofModels> models = models_for(target, draft);
  ProofOptions options;
  options.rounds = rounds;
  options.length = length;
  options.poll = SignalPoll{};
  const auto judge = judged.make(acceptance_policies());
  if (tree.is_none()) shape.spec = default_proof_tree(*judge);
  py::gil_scoped_release unlocked;
  return prove(*judge, draft_law, *shape.make(tree_policies()), models, options);
}

/// [V^length] as [V, V, ..], one axis per token.
py::array by_token(const std::vector<double>& law, const ProofReport& report) {
  return adopt(std::vector<double>(law), std::vector<py::ssize_t>(report.length, report.vocab));
}

}  // namespace

void bind_prover(py::module_& m) {
  py::class_<CounterExample>(m, "CounterExample", "How an emitted text came to be too likely, in the smallest draft.")
      .def_readonly("text", &CounterExample::text, "A text with a wrong probability, as short as there is.")
      .def_readonly("expected", &CounterExample::expected, "Its probability under the target.")
      .def_readonly("actual", &CounterExample::actual, "Its probability as emitted.")
      .def_readonly("tree", &CounterExample::tree, "A drafted tree: token(children, …), in order of drawing.")
      .def_readonly("uniforms", &CounterExample::uniforms, "Where each uniform that was asked about lies.")
      .def_readonly("emitted", &CounterExample::emitted, "What is emitted then.");

  py::class_<ProofReport>(m, "Proof", "What prove() found.")
      .def_readonly("models", &ProofReport::models, "The models it was found on.")
      .def_readonly("lossless", &ProofReport::lossless, "Whether the emitted law is the target's, within 1e-12.")
      .def_readonly("tvd", &ProofReport::tvd, "Total variation distance between the two laws.")
      .def_readonly("expected_tokens", &ProofReport::expected_tokens, "Exact E[tokens per target pass].")
      .def_readonly("outcomes", &ProofReport::outcomes, "Ways of drafting and judging that were visited.")
      .def_property_readonly(
          "law",
          [](const ProofReport& self) {
            py::dict laws;
            laws["exact"] = by_token(self.expected, self);
            laws["emitted"] = by_token(self.emitted, self);
            return laws;
          },
          "Joint law of the first tokens, one axis each: 'exact' the target's, 'emitted' what came out.")
      .def_property_readonly(
          "counter_example", [](const ProofReport& self) { return self.counter_example; }, "CounterExample, or None.")
      .def("__repr__", [](const ProofReport& self) {
        return concat("<specmoe.Proof: ", self.lossless ? "LOSSLESS" : "BIASED", ", distance ", self.tvd, ", ",
                      self.expected_tokens, " tokens per pass on ", self.models, ">");
      });

  const ProofOptions defaults;
  m.def("prove", &prove_plugin, py::arg("policy"), py::arg("law") = std::string(law_name(DraftLaw::kIid)),
        py::arg("tree") = py::none(), py::arg("target") = py::none(), py::arg("draft") = py::none(),
        py::arg("rounds") = defaults.rounds, py::arg("length") = defaults.length,
        "Enumerates every way of drafting and judging with the real code: is the emitted law the target's?\n\n"
        "policy  spec string, or an AcceptancePolicy, which may be written in Python\n"
        "law     how children are drawn: 'iid', 'without_replacement', 'deterministic', …\n"
        "tree    spec string, or a TreePolicy; None: 'expansion(2,2)', for policies of chains alone 'chain(3)'\n"
        "target  row-stochastic matrix [V, V] by last token, V small; the built-in set unless given, with draft\n"
        "draft   the drafter's, the same\n"
        "rounds  steps enumerated; 2 catches what leaks from one step to the next\n"
        "length  tokens whose joint law is compared; 0: depth of the tree + rounds\n"
        "raises  Error when the policy is not defined for the tree, or a matrix is none; KeyboardInterrupt on Ctrl-C");
}

}  // namespace specmoe::python
