// The cost of a verify pass: time of a pass of T rows over that of a plain step, r(T), beside what bytes and arithmetic
// allow, on a model's own greedy text.
//
//     verify_curve FOLDER [--dtype bfloat16] [--rounds 15] [--threads 0] [--output FILE.jsonl]
//
// A sample runs passes of T rows of a chain at successive positions of the text, keeping one row each, so that every T
// sees the same positions and successive passes use the experts that decoding would.
//
// "predicted" is the cost model's (core/cost_model.h): distinct experts from one fitted number, the routing
// correlation, and from them bytes and r(T), with the rates at which the plain step's bytes were read and registers
// multiply. "limit" is measured: the larger of reading as many bytes as the passes do, in parts of a buffer as large as
// the model that lie and repeat as dense weights and chosen experts do (so caches hold what they would hold), and of as
// many multiply-adds in registers. Under r(T) it is that limit over the plain step's: what r(T) would be if every pass
// came as near to its limit as the plain one does.
//
// The limit takes it that reading for an expert of one row hides behind the arithmetic of another of eight; a second
// one, "in order", is the sum of the larger of both over the dense part of every layer and every expert, one after
// another.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>

#include "core/cost_model.h"
#include "core/logit_rows.h"
#include "core/nn/model_loader.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/lines.h"
#include "experiments/benchmarks/machine_limits.h"

namespace specmoe::bench {
namespace {

constexpr int kRowCounts[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32};
constexpr int kMostRows = 32;
constexpr int kContext = 64;  // tokens in the cache before the first pass

/// What passes read and compute.
struct Work {
  std::vector<kernels::Range> reads;  // in a buffer as large as the model: per layer its dense part, then its experts
  std::vector<int> rows;              // that are multiplied with the weights of a read
  double experts = 0;                 // distinct, mean over layers and passes
  PassWork pass;                      // of one pass, keys and values counted as well; they are few, and not in `reads`
};

class Curve {
 public:
  Curve(std::shared_ptr<LanguageModel> model, int passes)
      : model_(std::move(model)), passes_(passes), cache_(model_->new_cache(kContext + passes + kMostRows)) {
    std::iota(chain_, chain_ + kMostRows, -1);
    text_ = {5, 6, 7};
    while (static_cast<int>(text_.size()) < kContext + passes + kMostRows) {
      const int fed = cache_->committed();
      prefill(*model_, *cache_, std::span(text_).subspan(fed, text_.size() - 1 - fed));
      text_.push_back(pass(static_cast<int>(text_.size()) - 1, 1));
      cache_->truncate(static_cast<int>(text_.size()) - 2);
    }
  }

  /// Passes of `rows` rows at positions kContext, kContext + 1, ...
  void run(int rows) {
    cache_->truncate(kContext);
    for (int i = 0; i < passes_; ++i) {
      pass(kContext + i, rows);
      cache_->keep(std::span<const std::int32_t>(kRoot, 1));
    }
  }

  /// What run(rows) reads and computes.
  Work work(int rows) {
    Work total;
    cache_->truncate(kContext);
    for (int i = 0; i < passes_; ++i) {
      pass(kContext + i, rows);
      total.experts += add_reads(rows, total) / std::max(1, result_.moe_layers) / passes_;
      cache_->keep(std::span<const std::int32_t>(kRoot, 1));
    }
    total.pass = pass_work(model_->info(), rows, mean_context(), total.experts);
    return total;
  }

  double mean_context() const { return kContext + (passes_ - 1) / 2.0; }
  int passes() const { return passes_; }

 private:
  static constexpr std::int32_t kRoot[] = {0};

  /// Stages text [at, at + rows); returns the token that follows the first row.
  TokenId pass(int at, int rows) {
    const RowBlock block = {cache_.get(), std::span(text_).subspan(at, rows),
                            std::span<const std::int32_t>(chain_, rows), LogitsWanted::kAll};
    model_->forward({&block, 1}, result_);
    return result_.argmax.front();
  }

  /// Appends the reads of the last pass, of `rows` rows; returns its distinct experts, summed over layers.
  double add_reads(int rows, Work& work) const {
    const ModelInfo& info = model_->info();
    const std::int64_t chosen = std::int64_t{result_.moe_layers} * info.experts_per_token * info.expert_bytes;
    const std::int64_t dense = (info.active_weight_bytes - chosen) / info.layers / 64 * 64;
    const std::int64_t expert = info.expert_bytes / 64 * 64;
    const std::size_t choices = result_.moe_layers == 0 ? 0 : result_.experts.size() / std::size_t(result_.moe_layers);
    double distinct = 0;
    std::int64_t at = 0;
    const auto read = [&](std::int64_t bytes, int multiplied) {
      work.reads.push_back({at, at + bytes});
      work.rows.push_back(multiplied);
    };
    for (int layer = 0; layer < info.layers; ++layer) {
      read(dense, rows);
      at += dense;
      if (layer >= result_.moe_layers) continue;
      std::vector<int> chosen_by(static_cast<std::size_t>(info.experts));
      for (std::size_t i = 0; i < choices; ++i) ++chosen_by[result_.experts[std::size_t(layer) * choices + i]];
      for (const int choosing : chosen_by) {
        if (choosing != 0) read(expert, choosing);
        distinct += choosing != 0;
        at += expert;
      }
    }
    return distinct;
  }

  std::shared_ptr<LanguageModel> model_;
  int passes_;
  std::unique_ptr<KVCache> cache_;
  std::vector<TokenId> text_;
  std::int32_t chain_[kMostRows];
  ForwardResult result_;
};

/// Seconds of a pass whose parts follow one another, each as long as the larger of reading and multiplying takes.
double in_order(const Work& work, double reading, double multiplying) {
  double bytes = 0, products = 0, seconds = 0;
  const auto size = [&](std::size_t i) { return static_cast<double>(work.reads[i].end - work.reads[i].begin); };
  for (std::size_t i = 0; i < work.reads.size(); ++i) {
    bytes += size(i);
    products += size(i) * work.rows[i];
  }
  for (std::size_t i = 0; i < work.reads.size(); ++i) {
    seconds += std::max(reading * size(i) / bytes, multiplying * size(i) * work.rows[i] / products);
  }
  return seconds;
}

/// A number of rows: what was measured of it and what the cost model expected.
struct Point {
  int rows = 0;
  Interval time;   // of a pass, seconds
  Interval ratio;  // r(T)
  double reading = 0, multiplying = 0, ordered = 0;
  double expected_experts = 0, expected_ratio = 0;
  int quiet = 0;

  double limit() const { return std::max(reading, multiplying); }
};

struct Options {
  std::string folder;
  std::string dtype = "bfloat16";
  int rounds = 15;
  int threads = 0;
  std::string output;
};

class VerifyCurve {
 public:
  explicit VerifyCurve(const Options& options)
      : lines_("verify_curve", options.output),
        pool_(std::make_shared<kernels::ThreadPool>(options.threads)),
        model_(load(options)),
        curve_(model_, model_->info().active_weight_bytes < (64 << 20) ? 24 : 2),
        rounds_(options.rounds) {
    for (const int rows : kRowCounts) works_.push_back(curve_.work(rows));
    std::vector<CountedExperts> counted;
    for (std::size_t i = 0; i < works_.size(); ++i) counted.push_back({double(kRowCounts[i]), works_[i].experts});
    const ModelInfo& info = model_->info();
    correlation_ = fit_routing_correlation(info.experts, info.experts_per_token, counted);
  }

  void run() {
    measure();
    print();
    write();
  }

 private:
  std::shared_ptr<LanguageModel> load(const Options& options) const {
    nn::LoadOptions how;
    how.dtype = kernels::packed_dtype_from_name(options.dtype);
    how.pool = pool_;
    return nn::load_model(options.folder, how);
  }

  void measure() {
    const ReadProbe probe(static_cast<std::size_t>(model_->info().weight_bytes));
    const ArithmeticProbe arithmetic(kernels::backend_from_name(model_->info().instruction_set));
    Interleaved samples;
    samples.add("arithmetic", arithmetic.known() ? arithmetic.operations(*pool_) : 1, [&] {
      if (arithmetic.known()) arithmetic.run(*pool_);
    });
    for (std::size_t i = 0; i < works_.size(); ++i) {
      samples.add("reads", curve_.passes(), [&, i] { probe.read(*pool_, works_[i].reads); });
      samples.add("passes", curve_.passes(), [&, i] { curve_.run(kRowCounts[i]); });
    }
    samples.run(rounds_);

    constexpr std::size_t kPlainReads = 1, kPlain = 2;  // parts of `samples`
    const double multiply = arithmetic.known() ? samples.seconds(0).median : 0;
    rates_ = {works_[0].pass.bytes / samples.seconds(kPlainReads).median, multiply > 0 ? 1 / multiply : 0};
    for (std::size_t i = 0; i < works_.size(); ++i) {
      const std::size_t reads = kPlainReads + 2 * i, passes = kPlain + 2 * i;
      Point point;
      point.rows = kRowCounts[i];
      point.time = samples.seconds(passes);
      point.ratio = samples.ratio(passes, kPlain);
      point.reading = samples.seconds(reads).median;
      point.multiplying = works_[i].pass.operations * multiply;
      point.ordered = in_order(works_[i], point.reading, point.multiplying);
      point.expected_experts = expected(point.rows);
      point.expected_ratio = expected_seconds(point.rows) / expected_seconds(1);
      point.quiet = samples.kept(passes);
      points_.push_back(point);
    }
  }

  /// Distinct experts by the fitted correlation; independent routing where there was nothing to fit.
  double expected(int rows) const {
    const ModelInfo& info = model_->info();
    if (info.experts == 0) return 0;
    return expected_experts(info.experts, info.experts_per_token, rows, std::isnan(correlation_) ? 0 : correlation_);
  }
  double expected_seconds(int rows) const {
    return pass_seconds(pass_work(model_->info(), rows, curve_.mean_context(), expected(rows)), rates_);
  }

  void print() const {
    const ModelInfo& info = model_->info();
    std::printf("%s, %s, %s, %d threads; %s\n", info.name.c_str(), info.dtype.c_str(), info.instruction_set.c_str(),
                pool_->size(), lines_.where().cpu.c_str());
    std::printf("the plain step's bytes read at %.1f GB/s; arithmetic in registers %.0f GFLOP/s\n", rates_.bytes / 1e9,
                rates_.operations > 0 ? rates_.operations / 1e9 : std::nan(""));
    if (!std::isnan(correlation_)) {
      std::printf("routing correlation %.2f: T rows wake as many experts as 1 + %.2f (T - 1) independent ones\n",
                  correlation_, 1 - correlation_);
    }
    std::printf("\n%4s %19s   %s\n%4s %9s %9s   %-21s %9s %9s\n", "", "distinct experts", "r(T)", "T", "counted",
                "predicted", "measured [95 %]", "predicted", "limit");
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const Point& point = points_[i];
      std::printf("%4d %9.2f %9.2f   %-21s %9.2f %9.2f\n", point.rows, works_[i].experts, point.expected_experts,
                  interval_text(point.ratio, 1, 2).c_str(), point.expected_ratio, point.limit() / points_[0].limit());
    }
    std::printf("\n%4s %7s %23s %9s %9s %9s %9s %6s %8s %6s\n", "T", "MB", "us a pass [95 %]", "bytes us", "arith. us",
                "of limit", "in order", "GB/s", "GFLOP/s", "quiet");
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const Point& point = points_[i];
      const PassWork& pass = works_[i].pass;
      const double time = point.time.median;
      std::printf("%4d %7.1f %23s %9.1f %9.1f %9.2f %9.2f %6.1f %8.0f %3d/%d\n", point.rows, pass.bytes / 1e6,
                  interval_text(point.time, 1e6, 1).c_str(), point.reading * 1e6, point.multiplying * 1e6,
                  point.limit() / time, point.ordered / time, pass.bytes / time / 1e9, pass.operations / time / 1e9,
                  point.quiet, rounds_);
    }
  }

  void write() {
    lines_.of(model_->info());
    lines_.always({{"threads", pool_->size()}, {"measured", rounds_}, {"routing_correlation", correlation_}});
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const Point& point = points_[i];
      lines_.write({{"rows", point.rows},
                    {"experts", works_[i].experts},
                    {"predicted_experts", point.expected_experts},
                    {"bytes", works_[i].pass.bytes},
                    {"operations", works_[i].pass.operations},
                    {"seconds", interval_json(point.time)},
                    {"ratio", interval_json(point.ratio)},
                    {"predicted_ratio", point.expected_ratio},
                    {"read_seconds", point.reading},
                    {"multiply_seconds", point.multiplying},
                    {"in_order_seconds", point.ordered},
                    {"quiet", point.quiet}});
    }
  }

  Lines lines_;
  std::shared_ptr<kernels::ThreadPool> pool_;
  std::shared_ptr<LanguageModel> model_;
  Curve curve_;
  int rounds_;
  std::vector<Work> works_;  // by place in kRowCounts, as points_
  double correlation_;
  MachineRates rates_;
  std::vector<Point> points_;
};

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  specmoe::bench::Options options;
  specmoe::bench::CommandLine line("verify_curve",
                                   "What a target pass of 1 to 32 rows costs, r(T), predicted and measured, "
                                   "beside\nreading the same bytes and multiplying in registers.");
  line.word("FOLDER", options.folder, "checkpoint")
      .option("dtype", options.dtype, "element type of the weights")
      .option("rounds", options.rounds, 1, "samples of each T")
      .option("threads", options.threads, 0, "computing threads; 0: one per usable core")
      .option("output", options.output, "append JSON lines to this file");
  return line.run(argc, argv, [&] { specmoe::bench::VerifyCurve(options).run(); });
}
