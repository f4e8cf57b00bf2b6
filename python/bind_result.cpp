#include <pybind11/stl.h>

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/metrics.h"
#include "python/result.h"

namespace specmoe::python {
namespace {

Counts counts_of(const RequestRecord& record) {
  Counts counts;
  counts.add(record);
  counts.check_identities();
  return counts;
}

py::dict to_dict(const StageTimes& times, std::int64_t prefill_ns) {
  py::dict d;
  d["prefill_ns"] = prefill_ns;
  d["draft_ns"] = times.draft_ns;
  d["verify_ns"] = times.verify_ns;
  d["judge_ns"] = times.judge_ns;
  d["rest_ns"] = times.rest_ns;
  return d;
}

py::dict to_dict(const Counts& counts) {
  py::dict d;
  d["requests"] = counts.requests;
  d["steps"] = counts.steps;
  d["drafted"] = counts.drafted;
  d["accepted"] = counts.accepted;
  d["rejected"] = counts.rejected;
  d["unjudged"] = counts.unjudged;
  d["emitted"] = counts.emitted;
  d["truncated"] = counts.truncated;
  d["pass_rows"] = counts.pass_rows;
  d["drafted_at"] = counts.drafted_at;
  d["judged_at"] = counts.judged_at;
  d["accepted_at"] = counts.accepted_at;
  d["unique_experts"] = counts.unique_experts;
  return d;
}

py::dict to_dict(const Metrics& metrics) {
  py::dict d;
  d["tokens_per_s"] = metrics.tokens_per_s;
  d["tau"] = metrics.tau;
  d["acceptance_rate"] = metrics.acceptance_rate;
  d["draft_efficiency"] = metrics.draft_efficiency;
  d["rows_per_step"] = metrics.rows_per_step;
  d["acceptance_per_position"] = metrics.acceptance_per_position;
  d["reached_per_position"] = metrics.reached_per_position;
  d["unique_experts_per_layer"] = metrics.unique_experts_per_layer;
  d["unique_experts"] = metrics.unique_experts;
  d["union_ratio"] = metrics.union_ratio;
  d["draft_share"] = metrics.draft_share;
  d["verify_share"] = metrics.verify_share;
  d["judge_share"] = metrics.judge_share;
  d["rest_share"] = metrics.rest_share;
  return d;
}

/// The fields of StepRecord as NumPy sees them in memory, the stage times among them.
py::dtype step_dtype() {
  py::list names, formats, offsets;
  const auto field = [&](const char* name, const char* format, std::size_t offset) {
    names.append(name);
    formats.append(format);
    offsets.append(offset);
  };
  field("drafted", "i4", offsetof(StepRecord, drafted));
  field("accepted", "i4", offsetof(StepRecord, accepted));
  field("rejected", "i4", offsetof(StepRecord, rejected));
  field("unjudged", "i4", offsetof(StepRecord, unjudged));
  field("emitted", "i4", offsetof(StepRecord, emitted));
  field("truncated", "i4", offsetof(StepRecord, truncated));
  field("drafted_depth", "i4", offsetof(StepRecord, drafted_depth));
  field("judged_depth", "i4", offsetof(StepRecord, judged_depth));
  field("pass_rows", "i4", offsetof(StepRecord, pass_rows));
  field("draft_ns", "i8", offsetof(StepRecord, times) + offsetof(StageTimes, draft_ns));
  field("verify_ns", "i8", offsetof(StepRecord, times) + offsetof(StageTimes, verify_ns));
  field("judge_ns", "i8", offsetof(StepRecord, times) + offsetof(StageTimes, judge_ns));
  field("rest_ns", "i8", offsetof(StepRecord, times) + offsetof(StageTimes, rest_ns));
  return py::dtype(names, formats, offsets, sizeof(StepRecord));
}

py::array read_only(py::array array) {
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

const RequestRecord& record_of(const py::object& self) { return self.cast<const Result&>().record; }

std::string to_json(const Result& self, const std::string& category) {
  AnswerContext context = self.context;
  context.category = category;
  return answer_json(self.record, context);
}

/// results  references, which None does not become
py::dict metrics_of(const std::vector<std::reference_wrapper<const Result>>& results) {
  Counts counts;
  for (const Result& result : results) counts.add(counts_of(result.record));
  const int experts_per_token = results.empty() ? 0 : results.front().get().context.experts_per_token;
  return to_dict(derive(counts, experts_per_token));
}

void bind_arrays(py::class_<Result, std::shared_ptr<Result>>& result) {
  result
      .def_property_readonly(
          "token_ids", [](py::object self) { return view(std::span(record_of(self).tokens), self); },
          "Emitted token ids, a stop token included: int32 [n].")
      .def_property_readonly(
          "prompt_ids", [](py::object self) { return view(std::span(record_of(self).prompt), self); },
          "The prompt's token ids: int32 [S].")
      .def_property_readonly(
          "from_draft",
          [](py::object self) {
            const auto& marks = record_of(self).from_draft;
            return read_only(py::array(py::dtype::of<bool>(), {marks.size()}, {}, marks.data(), self));
          },
          "For each emitted token whether it was a draft token that was accepted: bool [n].")
      .def_property_readonly(
          "steps",
          [](py::object self) {
            const auto& steps = record_of(self).steps;
            return read_only(py::array(step_dtype(), {steps.size()}, {}, steps.data(), self));
          },
          "What each step did, a structured array [steps]: drafted, accepted, rejected, unjudged, emitted, truncated,\n"
          "drafted_depth, judged_depth, pass_rows, and draft_ns, verify_ns, judge_ns, rest_ns in nanoseconds.\n"
          "steps['accepted'] is one column; pandas.DataFrame(steps) the table.")
      .def_property_readonly(
          "unique_experts",
          [](py::object self) {
            const RequestRecord& record = record_of(self);
            const auto steps = static_cast<py::ssize_t>(record.steps.size());
            return read_only(
                py::array_t<std::int32_t>({steps, py::ssize_t{record.moe_layers}}, record.unique_experts.data(), self));
          },
          "Distinct experts over all rows of a step's target pass: int32 [steps, MoE layers].");
}

}  // namespace

void bind_result(py::module_& m) {
  py::class_<Result, std::shared_ptr<Result>> result(m, "Result",
                                                     "What became of one prompt. Arrays are read-only views.");
  bind_arrays(result);
  result
      .def_property_readonly(
          "text", [](const Result& self) { return self.text; },
          "The generated text, cut before a stop string; None without a tokenizer.")
      .def_property_readonly(
          "finish_reason", [](const Result& self) { return finish_reason_name(self.record.finish); }, "Why it ended.")
      .def_property_readonly(
          "counts", [](const Result& self) { return to_dict(counts_of(self.record)); },
          "Sums over steps, integers; the lists *_at are by draft position, unique_experts by MoE layer.")
      .def_property_readonly(
          "metrics",
          [](const Result& self) { return to_dict(derive(counts_of(self.record), self.context.experts_per_token)); },
          "Every rate by name, as metric_definitions() defines them; NaN where the denominator is 0.")
      .def_property_readonly(
          "stage_times",
          [](const Result& self) { return to_dict(counts_of(self.record).times, self.record.prefill_ns); },
          "Nanoseconds by stage; of a batched step each sequence is charged an equal share.")
      .def("to_json", &to_json, py::arg("category") = "",
           "One line of JSON in the Spec-Bench answer shape, as the command line writes it.")
      .def("__repr__", [](const Result& self) {
        const Counts counts = counts_of(self.record);
        return concat("<specmoe.Result: ", counts.emitted, " tokens in ", counts.steps, " steps, ",
                      finish_reason_name(self.record.finish), ">");
      });

  m.def("metrics", &metrics_of, py::arg("results"),
        "Every rate over several results together: sums first, then rates.");
  m.def(
      "metric_definitions",
      [] {
        py::dict definitions;
        for (const auto& [name, definition] : metric_definitions()) definitions[py::str(name)] = definition;
        return definitions;
      },
      "One line on each metric, with its denominator, by name.");
}

}  // namespace specmoe::python
