#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/drafter.h"
#include "python/values.h"

namespace specmoe::python {
namespace {

/// Hidden rows of a text's tokens [S - 1, W]. Room for all of them is taken at the start, so that they never move: what
/// Python has seen of them stays as it is.
struct HiddenText {
  std::vector<float> values;
  std::int64_t width = 0;

  void append(const float* row) { values.insert(values.end(), row, row + width); }
};

/// What a drafter written in Python knows about one sequence: the text, kept here, and whatever its open() returned.
struct PythonState final : DraftState {
  std::vector<TokenId> text;           // committed; the last is the root of the coming tree
  std::shared_ptr<HiddenText> hidden;  // null: without taps
  py::object own;

  ~PythonState() override {
    py::gil_scoped_acquire locked;
    own = py::object();
  }
};

/// ProposeRequest as Python sees it.
struct Question {
  std::vector<TokenId> text;
  std::shared_ptr<const HiddenText> hidden;
  TokenTree tree;
  std::vector<NodeId> frontier;
  SamplingParams sampling;
  int vocab_size = 0;
  py::object state;
  std::shared_ptr<LentUniforms> uniforms;
};

/// A Drafter that proposes in Python, one sequence at a time.
class PythonDrafter final : public Drafter, public py::trampoline_self_life_support {
 public:
  bool deterministic() const override {
    py::gil_scoped_acquire locked;
    return answer<bool>("deterministic", "a bool");
  }
  std::vector<DraftCheckpoint> checkpoints() const override {
    py::gil_scoped_acquire locked;
    std::vector<DraftCheckpoint> all;
    for (const auto& path : answer<std::vector<std::string>>("checkpoints", "a list of str")) all.push_back({path});
    return all;
  }
  void attach(const DraftContext&) override {
    py::gil_scoped_acquire locked;
    ask("attach")(assembling());
  }
  std::vector<int> taps() const override {
    py::gil_scoped_acquire locked;
    return answer<std::vector<int>>("taps", "a list of int");
  }
  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) override {
    auto state = std::make_unique<PythonState>();
    state->text.assign(prompt.begin(), prompt.end());
    if (hidden.cols > 0) {
      state->hidden = std::make_shared<HiddenText>();
      state->hidden->width = hidden.cols;
      state->hidden->values.reserve(static_cast<std::size_t>(capacity * hidden.cols));
      for (std::int64_t i = 0; i < hidden.rows; ++i) state->hidden->append(hidden.row(i));
    }
    py::gil_scoped_acquire locked;
    state->own = ask("open")(tokens_array(state->text));
    return state;
  }
  void propose(std::span<const ProposeRequest> requests) override {
    py::gil_scoped_acquire locked;
    const bool tokens = answer<bool>("deterministic", "a bool");
    for (const ProposeRequest& request : requests) {
      const auto& state = static_cast<const PythonState&>(*request.state);
      const Loan<LentUniforms> uniforms(*request.uniforms);
      const Draft<float>& draft = *request.draft;
      auto question = std::make_shared<Question>(Question{state.text,
                                                          state.hidden,
                                                          draft.tree,
                                                          {request.frontier.begin(), request.frontier.end()},
                                                          *request.sampling,
                                                          draft.rows.vocab(),
                                                          state.own,
                                                          *uniforms});
      read(ask("propose")(question), tokens, request);
    }
  }
  void commit(DraftState& base, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) override {
    auto& state = static_cast<PythonState&>(base);
    if (state.hidden != nullptr) {
      state.hidden->append(hidden.row(TokenTree::kRoot));
      for (NodeId node : verdict.accepted) state.hidden->append(hidden.row(node));
    }
    for (NodeId node : verdict.accepted) state.text.push_back(tree.token(node));
    state.text.push_back(verdict.next);
    py::gil_scoped_acquire locked;
    ask("commit")(state.own, tree, verdict.accepted, verdict.next);
  }

 private:
  py::object ask(const char* name) const { return method<Drafter>(this, name); }
  template <class Type>
  Type answer(const char* name, const char* wanted) const {
    return read_answer<Type>(ask(name)(), method_name<Drafter>(this, name), wanted);
  }

  void read(const py::object& answer, bool tokens, const ProposeRequest& request) const {
    const std::string who = method_name<Drafter>(this, "propose");
    if (!py::isinstance<py::sequence>(answer) && !py::isinstance<py::array>(answer)) {
      throw py::type_error(who + " must return one proposal per frontier node, got " +
                           py::repr(answer).cast<std::string>().substr(0, 60));
    }
    SPECMOE_CHECK(py::len(answer) == request.frontier.size(), who, ": expected ", request.frontier.size(),
                  " proposals, one per frontier node, got ", py::len(answer));
    request.proposals->assign(request.frontier.size(), Proposal{});
    for (std::size_t i = 0; i < request.frontier.size(); ++i) {
      const py::object proposed = answer[py::int_(i)];
      Proposal& proposal = (*request.proposals)[i];
      if (proposed.is_none()) continue;
      if (tokens) {
        proposal.tokens = read_tokens(proposed, who, request.draft->rows.vocab());
      } else {
        proposal.rows.push_back(read_row(proposed, who, request.frontier[i], request.draft->rows));
      }
    }
  }

  static std::vector<TokenId> read_tokens(const py::object& proposed, const std::string& who, int vocab) {
    std::vector<TokenId> tokens = to_token_ids(proposed, who);
    for (TokenId token : tokens) {
      SPECMOE_CHECK(token < vocab, who, ": token id ", token, " is outside the vocabulary of ", vocab);
    }
    return tokens;
  }

  static std::int32_t read_row(const py::object& proposed, const std::string& who, NodeId node,
                               StoredRows<float>& rows) {
    const auto row = to_floats(proposed, who);
    SPECMOE_CHECK(row.ndim() == 1 && row.size() == rows.vocab(), who, ": expected a probability row [V=", rows.vocab(),
                  "] for node ", node, ", got ", row.size(), " values in ", row.ndim(),
                  " dimensions; a drafter that proposes tokens says so by deterministic()");
    double total = 0;
    for (const float value : std::span(row.data(), static_cast<std::size_t>(row.size()))) {
      SPECMOE_CHECK(value >= 0, who, ": the row for node ", node, " holds ", value);
      total += value;
    }
    SPECMOE_CHECK(std::abs(total - 1.0) < 1e-4, who, ": the row for node ", node, " sums to ", total, ", expected 1");
    return rows.add_dense(std::span(row.data(), static_cast<std::size_t>(row.size())));
  }
};

void bind_question(py::module_& m) {
  py::class_<Question, std::shared_ptr<Question>>(m, "ProposeRequest", "What a drafter is asked about one sequence.")
      .def_property_readonly(
          "text",
          [](py::object self) { return view(std::span<const TokenId>(self.cast<const Question&>().text), self); },
          "The text so far: int32 [S]; its last token is the root of the tree.")
      .def_property_readonly(
          "hidden",
          [](py::object self) {
            const auto& hidden = self.cast<const Question&>().hidden;
            SPECMOE_CHECK(hidden != nullptr,
                          "request.hidden: this drafter asks for no hidden rows; name them in taps()");
            const auto rows = static_cast<py::ssize_t>(hidden->values.size()) / hidden->width;
            return view(std::span(hidden->values), self).reshape({rows, static_cast<py::ssize_t>(hidden->width)});
          },
          "Hidden rows of the target, of each token of the text but the last: float32 [S - 1, W], the boundaries that\n"
          "taps() names side by side.")
      .def_readonly("tree", &Question::tree,
                    "The TokenTree so far; the text at node n goes on with tree.path_tokens(n).")
      .def_readonly("frontier", &Question::frontier, "Nodes after which a proposal is wanted.")
      .def_readonly("vocab_size", &Question::vocab_size, "Length V of a row.")
      .def_readonly("state", &Question::state, "What open() returned for this sequence.")
      .def_readonly("uniforms", &Question::uniforms, "Uniforms, for random choices of its own (purpose 'plugin').")
      .def_property_readonly(
          "temperature", [](const Question& self) { return self.sampling.temperature; }, "Of the request; 0 is greedy.")
      .def_property_readonly(
          "top_k", [](const Question& self) { return self.sampling.top_k; }, "Of the request.")
      .def_property_readonly(
          "top_p", [](const Question& self) { return self.sampling.top_p; }, "Of the request.")
      .def_property_readonly(
          "min_p", [](const Question& self) { return self.sampling.min_p; }, "Of the request.")
      .def_property_readonly(
          "repetition_penalty", [](const Question& self) { return self.sampling.repetition_penalty; },
          "Of the request. The target's rows are penalised; a draft need not be, but may be accepted more often.")
      .def_property_readonly(
          "presence_penalty", [](const Question& self) { return self.sampling.presence_penalty; }, "Of the request.")
      .def_property_readonly(
          "frequency_penalty", [](const Question& self) { return self.sampling.frequency_penalty; }, "Of the request.");
}

}  // namespace

std::shared_ptr<Model>& assembling() {
  static thread_local std::shared_ptr<Model> target;
  return target;
}

void bind_drafter(py::module_& m) {
  bind_question(m);
  py::class_<Drafter, PythonDrafter, py::smart_holder>(
      m, "Drafter", "The cheap proposer of tokens. Subclass it and define propose(); the rest is optional.")
      .def(py::init<>())
      .def(
          "deterministic", [](const Drafter&) { return false; },
          "Whether it proposes tokens, not rows: every draft of it is then deterministic.")
      .def(
          "checkpoints", [](const Drafter&) { return std::vector<std::string>(); },
          "Folders that attach() will open: a grid runs its cells again when they have changed.")
      .def(
          "attach", [](const Drafter&, const std::shared_ptr<Model>&) {}, py::arg("target"),
          "Called once, when an Engine is assembled with the target Model: load what is needed, or raise.")
      .def(
          "taps", [](const Drafter&) { return std::vector<int>(); },
          "Boundaries of the target whose hidden rows it drafts from, asked for once it is attached: i is the "
          "residual\n"
          "stream that enters layer i, info.layers what leaves the last, info.layers + 1 the same after the final "
          "norm.\n"
          "They come as request.hidden.")
      .def(
          "open", [](const Drafter&, const py::array&) { return py::none(); }, py::arg("prompt"),
          "Starts a sequence; what it returns comes back as request.state. prompt: int32 [S].")
      .def(
          "propose", [](py::object self, py::object) -> py::object { must_define(self, "propose(request)"); },
          py::arg("request"),
          "Returns one proposal per node of request.frontier, None where there is nothing to propose.\n\n"
          "A proposal is a probability row [V] to draw from, so the whole may be an array [n, V]; the rows must be "
          "what\n"
          "children are meant to be drawn from, temperature and cuts included. When deterministic() is true it is a\n"
          "list of token ids, the best first.")
      .def(
          "commit", [](const Drafter&, py::object, const TokenTree&, const std::vector<NodeId>&, TokenId) {},
          py::arg("state"), py::arg("tree"), py::arg("accepted"), py::arg("next"),
          "The step's outcome: the nodes kept and the extra token, which is the next root.");
}

}  // namespace specmoe::python
