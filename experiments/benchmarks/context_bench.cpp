// Long texts: filling a cache with 512 tokens beside the arithmetic in registers, and steps at growing contexts, where
// attention's own bytes are those that a short context does not have, beside reading as many.
//
//     context_bench FOLDER [--dtype bfloat16] [--kv-dtype float32] [--rounds 15] [--threads 0] [--output FILE.jsonl]
//
// The operations of filling are those of the weights; attention's come on top of them. A step scores one row behind
// the whole context, so a time is one step's; steps and reads take turns.

#include <cstdio>
#include <memory>

#include "core/logit_rows.h"
#include "core/nn/model_loader.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/lines.h"
#include "experiments/benchmarks/machine_limits.h"

namespace specmoe::bench {
namespace {

constexpr int kFilled = 512;
constexpr int kShort = 64;
constexpr int kContexts[] = {8192, 4096, 2048, 1024};  // falling: a cache is filled once and then cut

/// One text of a model; tokens are of no matter to the time.
class Text {
 public:
  Text(LanguageModel& model, int capacity) : model_(model), cache_(model.new_cache(capacity)) {}

  /// Fills the cache up to `length` tokens.
  void fill(int length) {
    std::vector<TokenId> tokens;
    for (int i = cache_->committed(); i < length; ++i) tokens.push_back((i * 37 + 5) % model_.info().vocab_size);
    prefill(model_, *cache_, tokens);
  }
  void cut(int length) { cache_->truncate(length); }
  /// One step behind the text, which stays as it is.
  void step() {
    const TokenId token = 7;
    const std::int32_t parent = -1;
    const RowBlock block = {cache_.get(), {&token, 1}, {&parent, 1}, LogitsWanted::kAll};
    model_.forward({&block, 1}, result_);
    cache_->truncate(cache_->committed());
  }

 private:
  LanguageModel& model_;
  std::unique_ptr<KVCache> cache_;
  ForwardResult result_;
};

class ContextBench {
 public:
  ContextBench(const std::string& folder, const nn::LoadOptions& options, int rounds, const std::string& output)
      : lines_("context_bench", output),
        model_(nn::load_model(folder, options)),
        pool_(*options.pool),
        rounds_(rounds) {
    lines_.of(model_->info());
    lines_.always({{"threads", pool_.size()}});
  }

  void run() {
    const ModelInfo& info = model_->info();
    std::printf("%s, %s, cache %s, %s, %d threads; %s; commit %s\n", info.name.c_str(), info.dtype.c_str(),
                info.kv_dtype.c_str(), info.instruction_set.c_str(), pool_.size(), lines_.where().cpu.c_str(),
                lines_.where().commit.c_str());
    fill();
    steps();
  }

 private:
  void fill() {
    const ModelInfo& info = model_->info();
    const ArithmeticProbe arithmetic(kernels::backend_from_name(info.instruction_set));
    Text first(*model_, kFilled / 2), second(*model_, kFilled);
    second.fill(kFilled);
    Interleaved samples;
    samples.add("arithmetic", arithmetic.known() ? arithmetic.operations(pool_) : 1, [&] {
      if (arithmetic.known()) arithmetic.run(pool_);
    });
    // In halves, as prefill() does: the shorter a sample, the likelier it is alone.
    samples.add("first half", kFilled / 2.0, [&] {
      first.cut(0);
      first.fill(kFilled / 2);
    });
    samples.add("second half", kFilled / 2.0, [&] {
      second.cut(kFilled / 2);
      second.fill(kFilled);
    });
    samples.run(rounds_);
    const double width = info.dtype == "float32" ? 4.0 : info.dtype == "bfloat16" ? 2.0 : 1.0;
    const double head = static_cast<double>(info.vocab_size) * info.hidden_size;  // no logits are wanted
    const double operations = 2 * (static_cast<double>(info.active_weight_bytes) / width - head);
    const double peak = arithmetic.known() ? 1 / samples.seconds(0).median : std::nan("");
    const Interval early = samples.seconds(1), late = samples.seconds(2);
    const double time = (early.median + late.median) / 2;
    const double rate = operations / time;
    std::printf(
        "fill %d: %s and %s us a token [95 %%], %.0f tokens/s, %.0f GFLOP/s, %.2f of %.0f in registers, quiet "
        "%d and %d/%d\n",
        kFilled, interval_text(early, 1e6, 1).c_str(), interval_text(late, 1e6, 1).c_str(), 1 / time, rate / 1e9,
        rate / peak, peak / 1e9, samples.kept(1), samples.kept(2), samples.measured());
    lines_.write({{"stage", "fill"},
                  {"tokens", kFilled},
                  {"seconds", interval_json(early)},
                  {"seconds_late", interval_json(late)},
                  {"operations", operations},
                  {"operations_per_s", rate},
                  {"operations_per_s_in_registers", peak}});
  }

  void steps() {
    const ModelInfo& info = model_->info();
    std::printf("%8s %24s %24s %10s %9s %9s %9s %7s\n", "context", "step us [95 %]", "attention us [95 %]", "cache MB",
                "GB/s", "read GB/s", "of it", "quiet");
    Text brief(*model_, kShort + 1);
    brief.fill(kShort);
    std::unique_ptr<Text> text;
    for (const int context : kContexts) {
      if (context >= info.max_positions) continue;
      if (text == nullptr) {
        text = std::make_unique<Text>(*model_, context + 1);
        text->fill(context);
      }
      text->cut(context);
      measure(brief, *text, context);
    }
  }

  void measure(Text& brief, Text& text, int context) {
    const double bytes = static_cast<double>(model_->info().kv_bytes_per_token) * (context - kShort);
    const ReadProbe probe(static_cast<std::size_t>(bytes));
    Interleaved samples;
    samples.add("read", static_cast<double>(probe.bytes()), [&] { probe.read(pool_); });
    samples.add("short", 1, [&] { brief.step(); });
    samples.add("long", 1, [&] { text.step(); });
    samples.run(rounds_);
    const Interval step = samples.seconds(2);
    const Interval attention = samples.difference(2, 1);
    const double read = 1 / samples.seconds(0).median;
    const double rate = bytes / attention.median;
    std::printf("%8d %24s %24s %10.1f %9.1f %9.1f %9.2f %4d/%d\n", context, interval_text(step, 1e6, 0).c_str(),
                interval_text(attention, 1e6, 0).c_str(), bytes / 1e6, rate / 1e9, read / 1e9, rate / read,
                samples.kept(2), samples.measured());
    lines_.write({{"stage", "step"},
                  {"context", context},
                  {"seconds", interval_json(step)},
                  {"attention_seconds", interval_json(attention)},
                  {"attention_bytes", bytes},
                  {"read_bytes_per_s", read}});
  }

  Lines lines_;
  std::shared_ptr<LanguageModel> model_;
  kernels::ThreadPool& pool_;
  int rounds_;
};

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  std::string folder, output;
  std::string dtype = "bfloat16", kv_dtype = "float32";
  int rounds = 15, threads = 0;
  specmoe::bench::CommandLine line("context_bench",
                                   "Long texts: filling 512 tokens beside the multiply-adds in registers, and "
                                   "attention at contexts to 8192\nbeside reading as many bytes.");
  line.word("FOLDER", folder, "checkpoint")
      .option("dtype", dtype, "element type of the weights")
      .option("kv-dtype", kv_dtype, "element type of the cached keys and values")
      .option("rounds", rounds, 1, "samples of each context")
      .threads(threads)
      .output(output);
  return line.run(argc, argv, [&] {
    specmoe::nn::LoadOptions options;
    options.dtype = specmoe::kernels::packed_dtype_from_name(dtype);
    options.kv_dtype = specmoe::kernels::packed_dtype_from_name(kv_dtype);
    options.pool = std::make_shared<specmoe::kernels::ThreadPool>(threads);
    specmoe::bench::ContextBench(folder, options, rounds, output).run();
  });
}
