#include <pybind11/stl.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/engine.h"
#include "core/nn/text_stop.h"
#include "python/logits_processor.h"
#include "python/part.h"
#include "python/prompts.h"
#include "python/result.h"
#include "python/signal_poll.h"

namespace specmoe::python {
namespace {

/// An engine and what it needs beside it.
struct EngineHandle {
  std::shared_ptr<Model> target;
  std::unique_ptr<Engine> engine;
  EngineSpec spec;  // canonical; a plug-in that was passed as an object is named by its class
  bool running = false;
};

/// Sets a value for a scope.
template <class T>
class Scoped {
 public:
  Scoped(T& place, T value) : place_(place), before_(std::exchange(place, std::move(value))) {}
  ~Scoped() { place_ = std::move(before_); }
  Scoped(const Scoped&) = delete;
  Scoped& operator=(const Scoped&) = delete;

 private:
  T& place_;
  T before_;
};

std::shared_ptr<Model> target_of(const py::object& given) {
  if (py::isinstance<Model>(given)) return given.cast<std::shared_ptr<Model>>();
  return py::module_::import("specmoe").attr("load")(given).cast<std::shared_ptr<Model>>();
}

std::unique_ptr<EngineHandle> assemble(const py::object& target, const py::object& drafter, const py::object& tree,
                                       const py::object& acceptance, bool allow_lossy, bool device_loop,
                                       bool device_switch) {
  auto handle = std::make_unique<EngineHandle>();
  handle->target = target_of(target);
  handle->target->check_process();
  Part<Drafter> draft(drafter, "drafter");
  Part<TreePolicy> topology(tree, "tree");
  Part<AcceptancePolicy> policy(acceptance, "acceptance");
  const ModelLoader load_model = nn::draft_loader(handle->target->options);

  py::gil_scoped_release unlocked;
  const std::lock_guard alone(handle->target->running);
  const Scoped<std::shared_ptr<Model>> attaching(assembling(), handle->target);
  const EngineSpec spec{draft.spec, topology.spec, policy.spec, allow_lossy, device_loop, device_switch};
  handle->engine = std::make_unique<Engine>(handle->target->network, spec, load_model,
                                            EngineParts{draft.object, topology.object, policy.object});
  handle->spec = handle->engine->spec();
  return handle;
}

using Stops = std::vector<std::shared_ptr<nn::TextStop>>;

/// Hands the text of one prompt to a callable of Python as it settles.
class TextTeller {
 public:
  TextTeller(std::shared_ptr<const nn::TextStop> text, py::handle call) : text_(std::move(text)), call_(call) {}

  void operator()() {
    if (told_ == text_->settled()) return;
    const py::gil_scoped_acquire locked;
    const std::size_t from = std::exchange(told_, text_->settled());
    call_(text_->text().substr(from, told_ - from));
  }

 private:
  std::shared_ptr<const nn::TextStop> text_;
  py::handle call_;
  std::size_t told_ = 0;
};

/// Requests for prompts. A request's text depends on its prompt and its seed alone, never on what else is in the call;
/// only equal prompts with equal seeds are told apart, by counting them.
std::vector<Request> make_requests(const EngineHandle& handle, Prompts prompts, const Request& pattern,
                                   const std::vector<std::uint64_t>& seeds, const std::vector<std::string>& stop,
                                   bool want_text, Stops& stops) {
  SPECMOE_CHECK((stop.empty() && !want_text) || handle.target->tokenizer != nullptr,
                "stop and on_text are about text, and this model's folder has no tokenizer.json; leave them out");
  std::vector<Request> requests(prompts.ids.size(), pattern);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    request.id = std::to_string(i);
    request.sampling.seed = seeds[i];
    request.prompt = std::move(prompts.ids[i]);
    if (stop.empty() && !want_text) continue;
    stops.push_back(std::make_shared<nn::TextStop>(handle.target->tokenizer, stop));
    request.on_token = [text = stops.back()](TokenId token, bool) { return text->push(token); };
  }
  tell_repeats_apart(requests);
  return requests;
}

std::vector<RequestRecord> run(EngineHandle& handle, const std::vector<Request>& requests, int batch) {
  py::gil_scoped_release unlocked;
  handle.target->check_process();
  const std::lock_guard alone(handle.target->running);
  SPECMOE_CHECK(!handle.running, "this engine is generating already; a plug-in cannot call its own engine");
  const Scoped<bool> running(handle.running, true);
  return handle.engine->generate(requests, batch, SignalPoll{});
}

std::optional<std::string> text_of(const Model& target, const RequestRecord& record, const nn::TextStop* stop) {
  if (stop != nullptr) return stop->text();
  if (target.tokenizer == nullptr) return std::nullopt;
  return target.tokenizer->decode(record.tokens);
}

py::object generate(EngineHandle& handle, const py::object& given, int max_new_tokens, double temperature, int top_k,
                    double top_p, double min_p, double repetition_penalty, double presence_penalty,
                    double frequency_penalty, const py::object& logits_processor, const py::object& seed,
                    const py::object& stop, bool ignore_eos, int batch, const py::object& on_text) {
  Prompts prompts = read_prompts(given, handle.target->tokenizer.get());
  const bool single = prompts.single;
  const std::vector<std::uint64_t> seeds = read_seeds(seed, prompts.ids.size());
  const auto processors = read_logits_processors(logits_processor, prompts.ids.size());
  const std::vector<std::string> stop_strings = read_stops(stop);
  const ModelInfo& info = handle.target->network->info();
  Request pattern;
  pattern.max_new_tokens = max_new_tokens;
  pattern.sampling = {.temperature = temperature,
                      .top_k = top_k,
                      .top_p = top_p,
                      .min_p = min_p,
                      .repetition_penalty = repetition_penalty,
                      .presence_penalty = presence_penalty,
                      .frequency_penalty = frequency_penalty};
  if (!ignore_eos) pattern.stop_tokens = info.stop_tokens;

  Stops stops;
  SPECMOE_CHECK(on_text.is_none() || single, "on_text follows one prompt, got a list of ", prompts.ids.size());
  std::vector<Request> requests =
      make_requests(handle, std::move(prompts), pattern, seeds, stop_strings, !on_text.is_none(), stops);
  for (std::size_t i = 0; i < requests.size(); ++i) requests[i].logits_processor = processors[i];
  std::optional<TextTeller> tell;
  if (!on_text.is_none()) {
    tell.emplace(stops[0], on_text);
    requests[0].on_token = [text = stops[0], &tell](TokenId token, bool) {
      const bool over = text->push(token);
      (*tell)();
      return over;
    };
  }
  std::vector<RequestRecord> records = run(handle, requests, batch);
  for (const auto& stop : stops) stop->finish();
  if (tell) (*tell)();
  py::list results;
  for (std::size_t i = 0; i < records.size(); ++i) {
    auto result = std::make_shared<Result>();
    result->text = text_of(*handle.target, records[i], stops.empty() ? nullptr : stops[i].get());
    result->record = std::move(records[i]);
    result->context.model_id = info.name;
    result->context.spec = handle.spec;
    result->context.sampling = requests[i].sampling;
    result->context.logits_processor = requests[i].logits_processor != nullptr;
    result->context.text = result->text.value_or("");
    result->context.experts_per_token = info.experts_per_token;
    results.append(std::move(result));
  }
  return single ? py::object(results[0]) : py::object(results);
}

py::dict spec_of(const EngineHandle& self) {
  py::dict spec;
  spec["drafter"] = self.spec.drafter;
  spec["tree"] = self.spec.tree;
  spec["acceptance"] = self.spec.acceptance;
  spec["allow_lossy"] = self.spec.allow_lossy;
  return spec;
}

}  // namespace

void bind_engine(py::module_& m) {
  const Request request;
  const SamplingParams sampling;
  py::class_<EngineHandle>(
      m, "Engine",
      "Speculative decoding, or plain decoding when there is no drafter.\n\n"
      "target         Model, or the path of one to load()\n"
      "drafter        spec string such as 'independent(path)', or a Drafter; None: plain decoding\n"
      "tree           spec string such as 'chain(gamma=4)', or a TreePolicy\n"
      "acceptance     spec string such as 'token', or an AcceptancePolicy\n"
      "allow_lossy    permit a policy that does not keep the target's distribution\n"
      "device_loop    on a device, let whole steps follow one another without the host, as far as\n"
      "               there are such steps: see step_leader\n"
      "device_switch  on a device, let whole steps choose the size of the target's pass by the tree\n"
      "               that they have grown\n"
      "raises         Error for unknown names or parameters and for parts that do not fit together")
      .def(py::init(&assemble), py::arg("target"), py::arg("drafter") = py::none(), py::arg("tree") = py::none(),
           py::arg("acceptance") = py::none(), py::arg("allow_lossy") = EngineSpec{}.allow_lossy,
           py::arg("device_loop") = EngineSpec{}.device_loop, py::arg("device_switch") = EngineSpec{}.device_switch)
      .def(
          "generate", &generate, py::arg("prompts"), py::arg("max_new_tokens") = request.max_new_tokens,
          py::arg("temperature") = sampling.temperature, py::arg("top_k") = sampling.top_k,
          py::arg("top_p") = sampling.top_p, py::arg("min_p") = sampling.min_p,
          py::arg("repetition_penalty") = sampling.repetition_penalty,
          py::arg("presence_penalty") = sampling.presence_penalty,
          py::arg("frequency_penalty") = sampling.frequency_penalty, py::arg("logits_processor") = py::none(),
          py::arg("seed") = sampling.seed, py::arg("stop") = py::none(), py::arg("ignore_eos") = false,
          py::arg("batch") = 1, py::arg("on_text") = py::none(),
          "Continues prompts: one Result for one prompt, a list of them for a list.\n\n"
          "prompts         str, or token ids (a list, an integer array, a tensor that speaks DLPack); a list of "
          "those;\n"
          "                an integer array or tensor [B, S]\n"
          "max_new_tokens  most tokens per prompt\n"
          "temperature     0 is greedy; top_k 0, top_p 1 and min_p 0 cut nothing\n"
          "repetition_penalty, presence_penalty, frequency_penalty\n"
          "                1, 0 and 0 change nothing. The first divides logits above 0 of tokens in prompt or\n"
          "                output and multiplies those below; the others are subtracted from logits of tokens in\n"
          "                the output, once or as often as they occur. Each node of a draft is judged by the\n"
          "                penalties of its own text, so a text has plain decoding's distribution\n"
          "logits_processor\n"
          "                called with the token ids of a prompt and of its output so far and the logits [V] of what\n"
          "                comes next, penalties included; changes them in place or returns others: -inf forbids a\n"
          "                token. One callable, or one or None per prompt; Grammar is one. It is called for each node\n"
          "                of a draft, by the drafter too and in any order, so it must hang on its arguments alone;\n"
          "                after an output that it would not allow it may leave the logits as they are\n"
          "seed            an int, or one per prompt. A text depends on its prompt and seed alone, whatever else is\n"
          "                in the call; equal prompts with equal seeds come out different, in their order\n"
          "stop            a string or several: the text ends before the first of them\n"
          "ignore_eos      go on past the checkpoint's end-of-text tokens\n"
          "batch           most prompts that are decoded at a time\n"
          "on_text         called with each piece of one prompt's text as soon as it is settled, to show it while it\n"
          "                grows: on_text=lambda piece: print(piece, end='', flush=True)\n"
          "raises          Error before anything runs when a prompt cannot be run; KeyboardInterrupt on Ctrl-C;\n"
          "                whatever a plug-in written in Python raises")
      .def_readonly("target", &EngineHandle::target, "The target Model.")
      .def_property_readonly("spec", &spec_of, "drafter, tree and acceptance with every parameter, and allow_lossy.")
      .def_property_readonly(
          "step_leader", [](const EngineHandle& self) { return self.engine->step_leader(); },
          "Who leads the steps of one sequence at a time: '' (the CPU does everything), 'whole steps on cuda:0', or\n"
          "'steps led by the host: ' and why. The host always leads those of requests with penalties or a\n"
          "logits processor.")
      .def_property_readonly(
          "lossless", [](const EngineHandle& self) { return self.engine->lossless(); },
          "Whether every text it emits has exactly the target's distribution.")
      .def("__repr__", [](const EngineHandle& self) {
        if (self.spec.drafter.empty()) return concat("<specmoe.Engine: ", self.target->path, ", plain decoding>");
        return concat("<specmoe.Engine: ", self.target->path, ", ", self.spec.drafter, ", ", self.spec.tree, ", ",
                      self.spec.acceptance, ">");
      });
}

}  // namespace specmoe::python
