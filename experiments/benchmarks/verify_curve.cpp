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
#include <cmath>
#include <cstdio>
#include <memory>

#include "core/cost_model.h"
#include "core/nn/model_loader.h"
#include "experiments/benchmarks/chain_passes.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/lines.h"
#include "experiments/benchmarks/machine_limits.h"

namespace specmoe::bench {
namespace {

constexpr int kRowCounts[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32};

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
        chain_(model_, model_->info().active_weight_bytes < (64 << 20) ? 24 : 2),
        rounds_(options.rounds) {
    for (const int rows : kRowCounts) works_.push_back(chain_.work(rows));
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
      samples.add("reads", chain_.passes(), [&, i] { probe.read(*pool_, works_[i].reads); });
      samples.add("passes", chain_.passes(), [&, i] { chain_.run(kRowCounts[i]); });
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
      point.expected_experts = expected_experts(model_->info(), point.rows, correlation_);
      point.expected_ratio = expected_seconds(point.rows) / expected_seconds(1);
      point.quiet = samples.kept(passes);
      points_.push_back(point);
    }
  }

  double expected_seconds(int rows) const {
    const double experts = expected_experts(model_->info(), rows, correlation_);
    return pass_seconds(pass_work(model_->info(), rows, chain_.mean_context(), experts), rates_);
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
  ChainPasses chain_;
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
      .threads(options.threads)
      .output(options.output);
  return line.run(argc, argv, [&] { specmoe::bench::VerifyCurve(options).run(); });
}
