#include "python/prompts.h"

#include "kernels/check.h"

namespace specmoe::python {
namespace {

/// A str as UTF-8. Raises UnicodeEncodeError for half of a surrogate pair.
std::string read_text(py::handle given) {
  Py_ssize_t bytes = 0;
  const char* text = PyUnicode_AsUTF8AndSize(given.ptr(), &bytes);
  if (text == nullptr) throw py::error_already_set();
  return {text, static_cast<std::size_t>(bytes)};
}

std::vector<TokenId> read_prompt(py::handle given, const nn::Tokenizer* tokenizer) {
  if (!py::isinstance<py::str>(given)) return to_token_ids(given, "prompts");
  SPECMOE_CHECK(tokenizer != nullptr, "prompts: this model's folder has no tokenizer.json; give token ids, not text");
  return tokenizer->encode(read_text(given));
}

/// Whether it counts as an int. An array also has __index__, whatever it holds.
bool is_integer(py::handle given) { return PyIndex_Check(given.ptr()) != 0 && !py::isinstance<py::array>(given); }

bool is_one_prompt(py::handle given) {
  if (py::isinstance<py::str>(given)) return true;
  if (py::isinstance<py::array>(given)) return py::reinterpret_borrow<py::array>(given).ndim() <= 1;
  const auto items = py::reinterpret_borrow<py::sequence>(given);
  return !items.empty() && is_integer(py::object(items[0]));
}

std::uint64_t read_seed(py::handle given) {
  const py::int_ number = py::reinterpret_steal<py::int_>(PyNumber_Index(given.ptr()));
  if (!number) throw py::error_already_set();
  SPECMOE_CHECK(number >= py::int_(0) && number <= py::int_(UINT64_MAX), "seed: expected 0 to 2^64 - 1, got ",
                py::str(number).cast<std::string>());
  return number.cast<std::uint64_t>();
}

}  // namespace

Prompts read_prompts(py::handle given, const nn::Tokenizer* tokenizer) {
  if (!py::isinstance<py::array>(given) && py::hasattr(given, "__dlpack__")) {
    return read_prompts(as_array(given), tokenizer);
  }
  const bool sequence = py::isinstance<py::sequence>(given) && !py::isinstance<py::bytes>(given);
  if (!sequence && !py::isinstance<py::array>(given)) {
    throw py::type_error("prompts: expected a str, a list of str, token ids or a list of those, got " +
                         py::type::of(given).attr("__name__").cast<std::string>());
  }
  Prompts prompts;
  prompts.single = is_one_prompt(given);
  if (prompts.single) {
    prompts.ids.push_back(read_prompt(given, tokenizer));
  } else {
    for (py::handle prompt : given) prompts.ids.push_back(read_prompt(prompt, tokenizer));
  }
  return prompts;
}

std::vector<std::uint64_t> read_seeds(py::handle given, std::size_t prompts) {
  if (is_integer(given)) return std::vector<std::uint64_t>(prompts, read_seed(given));
  if (!py::isinstance<py::iterable>(given)) {
    throw py::type_error("seed: expected an int, or one per prompt, got " + py::repr(given).cast<std::string>());
  }
  std::vector<std::uint64_t> seeds;
  for (py::handle seed : given) seeds.push_back(read_seed(seed));
  SPECMOE_CHECK(seeds.size() == prompts, "seed: expected one for all prompts or ", prompts, ", one each, got ",
                seeds.size());
  return seeds;
}

std::vector<std::string> read_stops(py::handle given) {
  if (given.is_none()) return {};
  if (py::isinstance<py::str>(given)) return {read_text(given)};
  std::vector<std::string> stops;
  const bool list = py::isinstance<py::sequence>(given) && !py::isinstance<py::bytes>(given);
  if (list) {
    for (py::handle one : given) {
      if (!py::isinstance<py::str>(one)) break;
      stops.push_back(read_text(one));
    }
  }
  if (!list || stops.size() != py::len(given)) {
    throw py::type_error("stop: expected a str or a list of str, got " + py::repr(given).cast<std::string>());
  }
  return stops;
}

}  // namespace specmoe::python
