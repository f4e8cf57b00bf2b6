// What a speculative step costs beside the passes of its models: bookkeeping of the draft, tree, probabilities, policy,
// counting.
//
//     overhead_bench FOLDER DRAFTER [--steps 60] [--threads 0] [--output FILE.jsonl]
//
// The two folders need the same vocabulary (random_checkpoint.py --vocab 32000); texts are of no matter, so prompts are
// token ids. Both models are wrapped by a clock; what a step takes beyond their passes is the overhead. Medians over
// steps; a step during which another program took a core counts as long as it was.

#include <cstdio>
#include <memory>

#include "core/engine.h"
#include "core/nn/model_loader.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/lines.h"

namespace specmoe::bench {
namespace {

/// A model that adds up the time of its passes.
class Clocked final : public LanguageModel {
 public:
  explicit Clocked(std::shared_ptr<LanguageModel> model) : model_(std::move(model)) {}

  const ModelInfo& info() const override { return model_->info(); }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> text) const override {
    return model_->new_cache(capacity, text);
  }
  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override {
    const double start = now_s();
    model_->forward(blocks, result);
    seconds_ += now_s() - start;
  }
  double seconds() const { return seconds_; }

 private:
  std::shared_ptr<LanguageModel> model_;
  double seconds_ = 0;
};

double median(std::vector<double> values) { return bootstrap_median(values).median; }

/// Clocks of both models and of the engine, read between steps.
struct Reading {
  double all, target, drafter;
};

void measure(const std::shared_ptr<Clocked>& target, const std::shared_ptr<Clocked>& drafter, const EngineSpec& spec,
             double temperature, int steps, Lines& lines) {
  Engine engine(target, spec, [&](const std::string&, const std::string&) { return drafter; });
  Request request;
  request.prompt = {5, 6, 7, 8};
  request.max_new_tokens = 6 * steps;
  request.sampling.temperature = temperature;
  std::vector<Reading> readings;
  readings.reserve(static_cast<std::size_t>(steps) + 4);
  const auto poll = [&] { readings.push_back({now_s(), target->seconds(), drafter->seconds()}); };
  request.on_token = [&](TokenId, bool) { return readings.size() > static_cast<std::size_t>(steps); };
  engine.generate({&request, 1}, 1, poll);
  std::vector<double> all, passes, drafts, rest;
  for (std::size_t i = 3; i + 1 < readings.size(); ++i) {  // the first steps are not warm
    const Reading& a = readings[i];
    const Reading& b = readings[i + 1];
    all.push_back(b.all - a.all);
    passes.push_back(b.target - a.target);
    drafts.push_back(b.drafter - a.drafter);
    rest.push_back(all.back() - passes.back() - drafts.back());
  }
  std::printf("%-24s %-12s %5.1f %10.0f %10.0f %10.0f %9.1f %8.2f\n", spec.tree.c_str(), spec.acceptance.c_str(),
              temperature, median(all) * 1e6, median(passes) * 1e6, median(drafts) * 1e6, median(rest) * 1e6,
              100 * median(rest) / median(all));
  lines.write({{"tree", spec.tree},
               {"acceptance", spec.acceptance},
               {"temperature", temperature},
               {"steps", all.size()},
               {"step_seconds", median(all)},
               {"target_seconds", median(passes)},
               {"drafter_seconds", median(drafts)},
               {"rest_seconds", median(rest)}});
}

struct Options {
  std::string folder, drafter;
  int steps = 60;
  int threads = 0;
  std::string output;
};

void run(const Options& asked) {
  Lines lines("overhead_bench", asked.output);
  nn::LoadOptions options;
  options.pool = std::make_shared<kernels::ThreadPool>(asked.threads);
  const auto target = std::make_shared<Clocked>(nn::load_model(asked.folder, options));
  const auto drafter = std::make_shared<Clocked>(nn::load_model(asked.drafter, options));
  const ModelInfo& info = target->info();
  std::printf("%s with %s, vocabulary %d, %s, %s, %d threads; %s\n", info.name.c_str(), drafter->info().name.c_str(),
              info.vocab_size, info.dtype.c_str(), info.instruction_set.c_str(), options.pool->size(),
              lines.where().cpu.c_str());
  std::printf("%-24s %-12s %5s %10s %10s %10s %9s %8s\n", "tree", "policy", "temp.", "step us", "target us",
              "drafter us", "rest us", "rest %");
  lines.of(info);
  lines.always({{"threads", options.pool->size()}, {"drafter", drafter->info().name}, {"vocab", info.vocab_size}});
  for (const double temperature : {0.0, 0.8}) {
    for (const char* policy : {"token", "block"}) {
      measure(target, drafter, {.drafter = "independent(path=-)", .tree = "chain(gamma=4)", .acceptance = policy},
              temperature, asked.steps, lines);
    }
    measure(target, drafter, {.drafter = "independent(path=-)", .tree = "expansion(2,1,1)", .acceptance = "multi_step"},
            temperature, asked.steps, lines);
  }
}

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  specmoe::bench::Options options;
  specmoe::bench::CommandLine line("overhead_bench",
                                   "What a speculative step costs beside the passes of its two models.");
  line.word("FOLDER", options.folder, "checkpoint of the target")
      .word("DRAFTER", options.drafter, "checkpoint of the drafter, of the same vocabulary")
      .option("steps", options.steps, 1, "steps of each method")
      .threads(options.threads)
      .output(options.output);
  return line.run(argc, argv, [&] { specmoe::bench::run(options); });
}
