#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/language_model.h"
#include "core/metrics.h"
#include "core/provenance.h"
#include "kernels/check.h"

namespace specmoe::bench {

/// What a benchmark measured, appended to a file: one JSON object a line, with what, where and when it was measured.
class Lines {
 public:
  /// path  empty: nothing is written. Throws Error at once where it cannot be.
  Lines(std::string benchmark, std::string path)
      : benchmark_(std::move(benchmark)), path_(std::move(path)), where_(collect_provenance()) {
    if (path_.empty()) return;
    file_.open(path_, std::ios::app);
    SPECMOE_CHECK(file_, "cannot write '", path_, "'");
  }

  const Provenance& where() const { return where_; }

  /// Every line from here on says that it is of this model.
  void of(const ModelInfo& info) {
    common_.update({{"model", info.name},
                    {"dtype", info.dtype},
                    {"kv_dtype", info.kv_dtype},
                    {"instruction_set", info.instruction_set}});
  }
  /// Every line from here on has these fields.
  void always(const nlohmann::json& fields) { common_.update(fields); }

  void write(nlohmann::json line) {
    if (path_.empty()) return;
    line.update(common_);
    line.update(
        {{"benchmark", benchmark_}, {"cpu", where_.cpu}, {"commit", where_.commit}, {"started", where_.started}});
    file_ << line.dump() << std::endl;
    SPECMOE_CHECK(file_, "cannot write '", path_, "'");
  }

 private:
  std::string benchmark_;
  std::string path_;
  Provenance where_;
  nlohmann::json common_ = nlohmann::json::object();
  std::ofstream file_;
};

/// [median, low, high].
inline nlohmann::json interval_json(const Interval& value) { return {value.median, value.low, value.high}; }

}  // namespace specmoe::bench
