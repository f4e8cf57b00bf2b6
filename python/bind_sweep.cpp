#include <pybind11/iostream.h>
#include <pybind11/stl.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/provenance.h"
#include "core/results.h"
#include "experiments/bench_grid.h"
#include "experiments/fingerprint.h"
#include "experiments/interrupt.h"
#include "experiments/run_options.h"
#include "experiments/settings.h"
#include "experiments/tuner.h"
#include "python/bindings.h"

namespace specmoe::python {
namespace {

/// The target of the running grid as Python sees it: what drafters written in Python are attached to. Other threads
/// that come by it wait for the grid to end.
class GridTarget {
 public:
  GridTarget(const std::string& path, const cli::Models& models) : model_(std::make_shared<Model>()) {
    model_->path = path;
    model_->options = models.options;
    model_->network = models.target;
    model_->tokenizer = models.tokenizer;
    running_ = std::unique_lock(model_->running);
    assembling() = model_;
  }
  GridTarget(const GridTarget&) = delete;
  GridTarget& operator=(const GridTarget&) = delete;
  ~GridTarget() { assembling() = before_; }

 private:
  const std::shared_ptr<Model> before_ = assembling();
  std::shared_ptr<Model> model_;
  std::unique_lock<std::recursive_mutex> running_;
};

/// Lines of JSON that work(poll) returns. It runs without the GIL and calls poll() between steps.
template <class Work>
std::vector<std::string> measure(const Work& work) {
  const py::scoped_estream_redirect progress_to_python;
  // What a signal handler of Python raised waits here until the work has unwound: a grid takes every other exception
  // for a failure of one cell.
  std::unique_ptr<py::error_already_set> raised;
  const auto poll = [&raised] {
    py::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() == 0) return;
    raised = std::make_unique<py::error_already_set>();
    throw cli::Interrupted{};
  };
  try {
    py::gil_scoped_release unlocked;
    return work(poll);
  } catch (const cli::Interrupted&) {
    throw *raised;
  }
}

/// Runs the grid of `specmoe bench` in this process and returns its cells, in the grid's order.
std::vector<std::string> sweep(const std::string& config_json, const std::string& where) {
  return measure([&](const std::function<void()>& poll) {
    const cli::Settings settings = cli::Settings::from_config(cli::Command::kBench, config_json, where);
    const cli::RunOptions options = cli::run_options(cli::Command::kBench, settings);
    cli::OutputFile output(options.output);
    cli::Progress progress(options.quiet);
    const auto opened = [&](const cli::Models& models) { return std::make_shared<GridTarget>(options.target, models); };
    std::vector<std::string> lines;
    for (cli::BenchCell& cell : cli::run_grid(settings, options, {output, progress, poll, opened})) {
      output.line(cell.line);
      lines.push_back(std::move(cell.line));
    }
    output.commit();
    return lines;
  });
}

/// Runs `specmoe tune` in this process and returns what it ran: what the model was fitted to, then the others.
std::vector<std::string> tune(const std::string& config_json, const std::string& where) {
  return measure([&](const std::function<void()>& poll) {
    const cli::Settings settings = cli::Settings::from_config(cli::Command::kTune, config_json, where);
    const cli::RunOptions options = cli::run_options(cli::Command::kTune, settings);
    cli::OutputFile output(options.output);
    cli::Progress progress(options.quiet);
    const cli::Models models = cli::open_models(options, options.dtypes[0], progress);
    const GridTarget held(options.target, models);
    cli::Tuner tuner(options, models, {output, progress, poll});
    tuner.run();
    progress.clear();
    const Provenance provenance = collect_provenance();
    std::vector<std::string> lines;
    for (const cli::TunedTree& tree : tuner.trees()) {
      output.line(lines.emplace_back(cli::line_of(tree, provenance, settings.json())));
    }
    output.commit();
    return lines;
  });
}

}  // namespace

void bind_sweep(py::module_& m) {
  m.def("_sweep", &sweep, py::arg("config_json"), py::arg("where"));
  m.def("_tune", &tune, py::arg("config_json"), py::arg("where"));
  m.def("_provenance_json", [] { return provenance_json(collect_provenance()); });
  m.def("_fingerprint", [](const std::string& path) { return cli::fingerprint(path); }, py::arg("path"));
}

}  // namespace specmoe::python
