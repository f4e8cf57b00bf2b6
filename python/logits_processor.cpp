#include "python/logits_processor.h"

#include <algorithm>

#include "python/values.h"

namespace specmoe::python {
namespace {

/// Calls Python with arrays of its own, so that they may be kept.
class PythonLogitsProcessor final : public LogitsProcessor {
 public:
  explicit PythonLogitsProcessor(py::object call) : call_(std::move(call)) {}

  void process(std::span<const TokenId> prompt, std::span<const TokenId> output, std::span<float> logits) override {
    const py::gil_scoped_acquire locked;
    const py::array_t<float> row(static_cast<py::ssize_t>(logits.size()), logits.data());
    const py::object answer = call_(tokens_array(prompt), tokens_array(output), row);
    const auto changed = to_floats(answer.is_none() ? py::object(row) : answer, "logits_processor");
    SPECMOE_CHECK(changed.ndim() == 1 && changed.size() == row.size(),
                  "logits_processor: expected None or logits [V=", row.size(), "], got ", changed.size(), " values in ",
                  changed.ndim(), " dimensions");
    std::copy_n(changed.data(), logits.size(), logits.data());
  }

 private:
  py::object call_;
};

bool is_callable(py::handle given) { return PyCallable_Check(given.ptr()) == 1; }

std::shared_ptr<LogitsProcessor> processor_of(py::handle given) {
  if (given.is_none()) return nullptr;
  if (is_callable(given)) return std::make_shared<PythonLogitsProcessor>(py::reinterpret_borrow<py::object>(given));
  throw py::type_error("logits_processor: expected a callable (prompt_ids, output_ids, logits), or one or None per " +
                       ("prompt, got " + py::repr(given).cast<std::string>().substr(0, 60)));
}

}  // namespace

std::vector<std::shared_ptr<LogitsProcessor>> read_logits_processors(py::handle given, std::size_t prompts) {
  const bool one_each = py::isinstance<py::sequence>(given) && !py::isinstance<py::str>(given) && !is_callable(given);
  if (!one_each) return std::vector(prompts, processor_of(given));
  std::vector<std::shared_ptr<LogitsProcessor>> processors;
  for (py::handle one : given) processors.push_back(processor_of(one));
  SPECMOE_CHECK(processors.size() == prompts, "logits_processor: expected one for all prompts or ", prompts,
                ", one each, got ", processors.size());
  return processors;
}

}  // namespace specmoe::python
