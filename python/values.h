#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/draft.h"
#include "core/uniforms.h"
#include "python/bindings.h"

namespace specmoe::python {

/// Probability rows lent to a plug-in for one call. A row becomes a float64 array of its own, point masses included, so
/// a plug-in may keep it and write into it; float64 because decisions are computed in double.
class LentRows {
 public:
  template <class Real>
  explicit LentRows(std::function<ProbRow<Real>(NodeId)> row)
      : read_([row = std::move(row)](NodeId n) { return dense(row(n)); }) {}

  py::array_t<double> row(NodeId n) const {
    SPECMOE_CHECK(read_ != nullptr, "probability rows can only be read during the call they were passed to");
    return read_(n);
  }
  void end() { read_ = nullptr; }

 private:
  template <class Real>
  static py::array_t<double> dense(const ProbRow<Real>& row) {
    py::array_t<double> values(row.vocab());
    double* out = values.mutable_data();
    for (TokenId x = 0; x < row.vocab(); ++x) out[x] = static_cast<double>(row[x]);
    return values;
  }

  std::function<py::array_t<double>(NodeId)> read_;
};

/// The uniforms of a step, lent for one call.
class LentUniforms {
 public:
  explicit LentUniforms(UniformSource<double>& source) : source_(&source) {}
  Uniform<double> at(const UniformAddress& address) const {
    check();
    return source_->at(address);
  }
  /// Throws Error once the call is over.
  void check() const {
    SPECMOE_CHECK(source_ != nullptr, "uniforms can only be used during the call they were passed to");
  }
  void end() { source_ = nullptr; }

 private:
  UniformSource<double>* source_;
};

/// One of them. Under proof it asks the source, so it ends with the call as well.
struct LentUniform {
  std::shared_ptr<const LentUniforms> lender;
  Uniform<double> uniform;

  bool less(double numerator, double denominator) const {
    lender->check();
    return uniform.less(numerator, denominator);
  }
};

/// A draft as a plug-in sees it. The tree is a copy, which outlives the call; the rows do not.
struct LentDraft {
  TokenTree tree;
  std::string law;
  LentRows rows;

  template <class Real>
  explicit LentDraft(Draft<Real>& draft)
      : tree(draft.tree), law(law_name(draft.law)), rows(std::function<ProbRow<Real>(NodeId)>([&draft](NodeId n) {
          SPECMOE_CHECK(n > TokenTree::kRoot && n < draft.tree.size(), "draft.row: expected a node in [1, ",
                        draft.tree.size(), "), got ", n);
          return draft.row(n);
        })) {}
  void end() { rows.end(); }
};

/// Ends a loan with the scope, however the call comes out.
template <class Lent>
class Loan {
 public:
  template <class... Args>
  explicit Loan(Args&&... args) : lent_(std::make_shared<Lent>(std::forward<Args>(args)...)) {}
  ~Loan() { lent_->end(); }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  const std::shared_ptr<Lent>& operator*() const { return lent_; }

 private:
  std::shared_ptr<Lent> lent_;
};

/// The method of a plug-in written in Python: its own, or the default bound on the base class. Needs the GIL.
template <class Base>
py::object method(const Base* plugin, const char* name) {
  return py::cast(plugin, py::return_value_policy::reference).attr(name);
}

/// "MyPolicy.judge", for errors about what it returned.
template <class Base>
std::string method_name(const Base* plugin, const char* name) {
  const py::object self = py::cast(plugin, py::return_value_policy::reference);
  return py::type::of(self).attr("__name__").template cast<std::string>() + "." + name;
}

/// What a method of a plug-in returned. Raises TypeError: "MyTree.max_depth must return an int, got 2.5".
template <class Type>
Type read_answer(const py::object& answer, const std::string& who, const char* wanted) {
  try {
    return answer.cast<Type>();
  } catch (const py::cast_error&) {
    throw py::type_error(who + " must return " + wanted + ", got " + py::repr(answer).cast<std::string>());
  }
}

/// What a plug-in or a logits processor returned, as float32. Raises TypeError for anything that is no numbers.
inline py::array_t<float, py::array::c_style | py::array::forcecast> to_floats(py::handle given,
                                                                               const std::string& who) {
  const auto floats = py::array_t < float, py::array::c_style | py::array::forcecast > ::ensure(as_array(given));
  if (!floats) {
    throw py::type_error(who + ": expected numbers, got " + py::repr(given).cast<std::string>().substr(0, 60));
  }
  return floats;
}

[[noreturn]] inline void must_define(const py::object& plugin, const char* signature) {
  PyErr_SetString(PyExc_NotImplementedError,
                  (py::type::of(plugin).attr("__name__").cast<std::string>() + " must define " + signature).c_str());
  throw py::error_already_set();
}

}  // namespace specmoe::python
