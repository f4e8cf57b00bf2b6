#include "experiments/bench_run.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "experiments/interrupt.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr int kWarmUpTokens = 32;

/// An engine of the grid, or why there is none.
struct Entry {
  EngineSpec spec;
  std::shared_ptr<Engine> engine;
  std::string failure;
};

/// Plain decoding or one cell, and what it did at one temperature.
struct Method {
  EngineSpec spec;
  std::shared_ptr<Engine> engine;
  Counts counts;
  Counts group;                      // of the group being run
  std::vector<double> group_rates;   // tokens/s, all runs of a group together
  std::vector<RequestRecord> texts;  // first run
  std::string difference;
};

/// Plain decoding first.
std::vector<Entry> assemble(const RunOptions& options, const Models& models) {
  std::vector<Entry> entries;
  const auto add = [&](const EngineSpec& spec) {
    entries.push_back({spec, nullptr, ""});
    try {
      entries.back().engine = std::make_shared<Engine>(models.target, spec, models.load_model);
      entries.back().spec = entries.back().engine->spec();
    } catch (const Error& error) {
      entries.back().failure = error.what();
    }
  };
  add({});
  for (const std::string& drafter : options.drafters) {
    for (const std::string& tree : options.trees) {
      for (const std::string& acceptance : options.acceptances) {
        add({drafter, tree, acceptance, options.allow_lossy});
      }
    }
  }
  return entries;
}

/// Where two texts of one question part; empty when they do not.
std::string first_difference(const Models& models, const RequestRecord& wanted, const RequestRecord& got) {
  const auto [a, b] = std::mismatch(wanted.tokens.begin(), wanted.tokens.end(), got.tokens.begin(), got.tokens.end());
  if (a == wanted.tokens.end() && b == got.tokens.end()) return "";
  const auto shown = [&](auto at, auto end) {
    return at == end ? std::string("the end") : concat(*at, " (\"", models.tokenizer->token_text(*at), "\")");
  };
  return concat("question ", wanted.id, ", token ", a - wanted.tokens.begin(), ": ", shown(b, got.tokens.end()),
                " instead of ", shown(a, wanted.tokens.end()));
}

class GridAtTemperature {
 public:
  GridAtTemperature(const RunOptions& options, const Models& models, double temperature, OutputFile& output,
                    Progress& progress)
      : options_(options),
        models_(models),
        output_(output),
        progress_(progress),
        requests_(make_requests(options, models, temperature)),
        temperature_(temperature) {}

  /// One short run of every method, which also finds out whether it can run at this temperature at all.
  void warm_up(const std::vector<Entry>& entries) {
    const std::size_t batch = std::min<std::size_t>(options_.batch, requests_.size());
    std::vector<Request> few(requests_.begin(), requests_.begin() + static_cast<std::ptrdiff_t>(batch));
    for (Request& request : few) request.max_new_tokens = std::min(request.max_new_tokens, kWarmUpTokens);
    for (const Entry& entry : entries) {
      std::string failure = entry.failure;
      try {
        if (entry.engine) entry.engine->generate(few, options_.batch, poll_interrupt);
      } catch (const Error& error) {
        if (entry.spec.drafter.empty()) throw;  // what plain decoding cannot do no method can
        failure = error.what();
      }
      if (failure.empty()) {
        methods_.push_back({entry.spec, entry.engine, {}, {}, {}, {}, {}});
      } else {
        failed_.push_back(failed_cell(entry.spec, failure));
      }
    }
  }
  const std::vector<BenchCell>& failed() const { return failed_; }

  std::vector<BenchCell> run() {
    const int total = static_cast<int>(requests_.size());
    for (int first = 0; first < total; first += options_.batch) {
      run_group(first, std::min(options_.batch, total - first));
    }
    progress_.clear();
    std::vector<BenchCell> cells;
    for (std::size_t m = 1; m < methods_.size(); ++m) cells.push_back(cell(methods_[m]));
    cells.insert(cells.end(), failed_.begin(), failed_.end());
    return cells;
  }

 private:
  const Method& plain() const { return methods_[0]; }

  void run_group(int first, int count) {
    for (Method& method : methods_) method.group = {};
    for (int round = 0; round < options_.repeat; ++round) {
      for (std::size_t m = 0; m < methods_.size(); ++m) run_once(methods_[m], first, count, 2 * round);
      for (std::size_t m = methods_.size(); m-- > 0;) run_once(methods_[m], first, count, 2 * round + 1);
    }
    for (Method& method : methods_) {
      method.counts.add(method.group);
      method.group_rates.push_back(derive(method.group, 0).tokens_per_s);
    }
  }

  void run_once(Method& method, int first, int count, int run) {
    progress_.step(first, static_cast<int>(requests_.size()),
                   concat("temperature ", temperature_, ", ", method.spec.drafter.empty() ? "plain" : method.spec.tree,
                          ", run ", run + 1, " of ", 2 * options_.repeat));
    std::vector<Request> group(requests_.begin() + first, requests_.begin() + first + count);
    attach_stops(group);
    std::vector<RequestRecord> records = method.engine->generate(group, count, poll_interrupt);
    for (int i = 0; i < count; ++i) {
      method.group.add(records[i]);
      compare(method, records[i], first + i, run);
      write(method, records[i], first + i, run);
      if (run == 0) method.texts.push_back(std::move(records[i]));
    }
  }

  void attach_stops(std::vector<Request>& group) const {
    if (options_.stops.empty()) return;
    for (Request& request : group) {
      auto stop = std::make_shared<nn::TextStop>(models_.tokenizer, options_.stops);
      request.on_token = [stop](TokenId token, bool) { return stop->push(token); };
    }
  }

  /// A greedy text must be plain decoding's, and any text the same in every run.
  void compare(Method& method, const RequestRecord& record, int prompt, int run) const {
    const Method& reference = temperature_ == 0.0 ? plain() : method;
    if (!method.difference.empty() || (run == 0 && &reference == &method)) return;
    method.difference = first_difference(models_, reference.texts[prompt], record);
  }

  void write(const Method& method, const RequestRecord& record, int prompt, int run) {
    const ModelInfo& target = models_.target->info();
    output_.line(answer_json(record, {options_.prompts[prompt].category, model_id(target, method.spec, temperature_),
                                      method.spec, requests_[prompt].sampling,
                                      text_of(models_, options_.stops, record.tokens), run, target.experts_per_token}));
  }

  BenchCell failed_cell(const EngineSpec& spec, const std::string& failure) const {
    BenchCell cell;
    cell.summary.spec = spec;
    cell.summary.sampling = requests_[0].sampling;
    cell.failure = failure;
    return cell;
  }

  BenchCell cell(const Method& method) const {
    method.counts.check_identities();
    BenchCell cell;
    BenchSummary& summary = cell.summary;
    summary.spec = method.spec;
    summary.lossless = method.engine->lossless();
    summary.sampling = requests_[0].sampling;
    summary.prompts = static_cast<int>(requests_.size());
    summary.runs = 2 * options_.repeat;
    summary.plain = plain().counts;
    summary.speculative = method.counts;
    for (std::size_t g = 0; g < method.group_rates.size(); ++g) {
      summary.speedups.push_back(method.group_rates[g] / plain().group_rates[g]);
    }
    summary.speedup = bootstrap_median(summary.speedups);
    if (temperature_ == 0.0) summary.identical = method.difference.empty() && plain().difference.empty();
    cell.difference = plain().difference.empty() ? method.difference : plain().difference;
    cell.texts = method.texts;
    return cell;
  }

  const RunOptions& options_;
  const Models& models_;
  OutputFile& output_;
  Progress& progress_;
  std::vector<Request> requests_;
  double temperature_;
  std::vector<Method> methods_;  // those that can run; plain decoding first
  std::vector<BenchCell> failed_;
};

}  // namespace

std::vector<BenchCell> run_grid(const RunOptions& options, const Models& models, OutputFile& output,
                                Progress& progress) {
  const std::vector<Entry> entries = assemble(options, models);
  std::vector<std::unique_ptr<GridAtTemperature>> grids;
  std::size_t failures = 0;
  for (double temperature : options.temperatures) {
    grids.push_back(std::make_unique<GridAtTemperature>(options, models, temperature, output, progress));
    grids.back()->warm_up(entries);
    failures += grids.back()->failed().size();
  }
  const std::size_t cells_wanted = (entries.size() - 1) * grids.size();
  if (failures >= cells_wanted) fail(grids[0]->failed().at(0).failure);
  std::vector<BenchCell> cells;
  for (auto& grid : grids) {
    for (BenchCell& cell : grid->run()) cells.push_back(std::move(cell));
  }
  return cells;
}

}  // namespace specmoe::cli
