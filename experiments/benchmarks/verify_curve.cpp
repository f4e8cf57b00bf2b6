// The cost of a verify pass: time of a pass of T rows over that of a plain step, r(T), beside what bytes and arithmetic
// allow, on a model's own greedy text.
//
//     verify_curve FOLDER [dtype = bfloat16] [rounds = 15] [threads = 0: all cores] [output.jsonl]
//
// A sample runs passes of T rows of a chain at successive positions of the text, keeping one row each, so that every T
// sees the same positions and successive passes use the experts that decoding would. The limit is the larger of two
// times measured in the same rounds by the same team: reading as many bytes as the passes do, in parts of a buffer as
// large as the model that lie and repeat as dense weights and chosen experts do (so caches hold what they would hold),
// and as many multiply-adds in registers. Attention's own arithmetic is not counted. "limit's" is r(T) of the limit
// itself: what r(T) would be if every pass came as near to its limit as the plain one does.
//
// The limit takes it that reading for an expert of one row hides behind the arithmetic of another of eight; a second
// one, "in order", is the sum of the larger of both over the dense part of every layer and every expert, one after
// another.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/logit_rows.h"
#include "core/nn/model_loader.h"
#include "core/provenance.h"
#include "experiments/benchmarks/arguments.h"
#include "experiments/benchmarks/harness.h"
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
  double bytes = 0;                   // a pass
  double operations = 0;              // a pass
  double experts = 0;                 // distinct, mean over layers and passes
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

  /// What run(rows) reads and computes. Keys and values count as bytes but are few and not among the reads.
  Work work(int rows) {
    const ModelInfo& info = model_->info();
    const double width = info.dtype == "float32" ? 4.0 : info.dtype == "bfloat16" ? 2.0 : 1.0;
    Work total;
    cache_->truncate(kContext);
    for (int i = 0; i < passes_; ++i) {
      pass(kContext + i, rows);
      total.experts += add_reads(rows, total) / std::max(1, result_.moe_layers) / passes_;
      total.bytes += static_cast<double>(info.kv_bytes_per_token) * (kContext + i + rows) / passes_;
      cache_->keep(std::span<const std::int32_t>(kRoot, 1));
    }
    for (const kernels::Range& read : total.reads) total.bytes += static_cast<double>(read.end - read.begin) / passes_;
    total.operations = rows * 2.0 * static_cast<double>(info.active_weight_bytes) / width;
    return total;
  }

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

void run(const std::string& folder, const std::string& dtype, int rounds, int threads, const std::string& output) {
  std::ofstream lines;
  if (!output.empty()) {
    lines.open(output, std::ios::app);
    SPECMOE_CHECK(lines, "cannot write '", output, "'");
  }
  nn::LoadOptions options;
  options.dtype = kernels::packed_dtype_from_name(dtype);
  options.pool = std::make_shared<kernels::ThreadPool>(threads);
  const double start = now_s();
  const auto model = nn::load_model(folder, options);
  const double load_s = now_s() - start;
  const ModelInfo& info = model->info();
  kernels::ThreadPool& pool = *options.pool;
  Curve curve(model, info.active_weight_bytes < (64 << 20) ? 24 : 2);
  const ReadProbe probe(static_cast<std::size_t>(info.weight_bytes));
  const ArithmeticProbe arithmetic(kernels::backend_from_name(info.instruction_set));

  Interleaved samples;
  samples.add("arithmetic", arithmetic.known() ? arithmetic.operations(pool) : 1, [&] {
    if (arithmetic.known()) arithmetic.run(pool);
  });
  std::vector<Work> works;
  for (const int rows : kRowCounts) works.push_back(curve.work(rows));
  for (std::size_t i = 0; i < works.size(); ++i) {
    samples.add("reads", curve.passes(), [&, i] { probe.read(pool, works[i].reads); });
    samples.add("passes", curve.passes(), [&, i] { curve.run(kRowCounts[i]); });
  }
  samples.run(rounds);

  const double multiply = arithmetic.known() ? samples.seconds(0).median : 0;
  const Provenance where = collect_provenance();
  std::printf("%s, %s, %s, %d threads; %s; loaded in %.2f s\n", info.name.c_str(), info.dtype.c_str(),
              info.instruction_set.c_str(), pool.size(), where.cpu.c_str(), load_s);
  std::printf("arithmetic in registers %.0f GFLOP/s; of bytes and arithmetic the larger is the limit\n",
              multiply > 0 ? 1e-9 / multiply : std::nan(""));
  std::printf("%4s %8s %7s %23s %21s %9s %9s %9s %9s %9s %6s %8s %6s\n", "T", "experts", "MB", "us a pass [95 %]",
              "r(T) [95 %]", "limit's", "bytes us", "arith. us", "of limit", "in order", "GB/s", "GFLOP/s", "quiet");
  double limit_of_one = 0;
  for (std::size_t i = 0; i < std::size(kRowCounts); ++i) {
    const std::size_t part = 2 * i + 2;
    const Interval time = samples.seconds(part);
    const Interval ratio = samples.ratio(part, 2);
    const double reading = samples.seconds(part - 1).median;
    const double multiplying = works[i].operations * multiply;
    const double limit = std::max(reading, multiplying);
    const double ordered = in_order(works[i], reading, multiplying);
    if (i == 0) limit_of_one = limit;
    std::printf("%4d %8.2f %7.1f %23s %21s %9.2f %9.1f %9.1f %9.2f %9.2f %6.1f %8.0f %3d/%d\n", kRowCounts[i],
                works[i].experts, works[i].bytes / 1e6, interval_text(time, 1e6, 1).c_str(),
                interval_text(ratio, 1, 2).c_str(), limit / limit_of_one, reading * 1e6, multiplying * 1e6,
                limit / time.median, ordered / time.median, works[i].bytes / time.median / 1e9,
                works[i].operations / time.median / 1e9, samples.kept(part), samples.measured());
    if (!lines.is_open()) continue;
    const nlohmann::json line = {{"benchmark", "verify_curve"},
                                 {"model", info.name},
                                 {"dtype", info.dtype},
                                 {"instruction_set", info.instruction_set},
                                 {"threads", pool.size()},
                                 {"rows", kRowCounts[i]},
                                 {"experts", works[i].experts},
                                 {"bytes", works[i].bytes},
                                 {"operations", works[i].operations},
                                 {"seconds", {time.median, time.low, time.high}},
                                 {"ratio", {ratio.median, ratio.low, ratio.high}},
                                 {"read_seconds", reading},
                                 {"multiply_seconds", multiplying},
                                 {"in_order_seconds", ordered},
                                 {"quiet", samples.kept(part)},
                                 {"measured", samples.measured()},
                                 {"cpu", where.cpu},
                                 {"commit", where.commit},
                                 {"started", where.started}};
    lines << line.dump() << std::endl;
    SPECMOE_CHECK(lines, "cannot write '", output, "'");
  }
}

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  using specmoe::bench::Arguments;
  return specmoe::bench::main_of(
      argc, argv, "verify_curve FOLDER [dtype = bfloat16] [rounds = 15] [threads = 0: all cores] [output.jsonl]", 1,
      [](const Arguments& arguments) {
        specmoe::bench::run(arguments.text(0), arguments.text(1, "bfloat16"), arguments.integer(2, "rounds", 15, 1),
                            arguments.integer(3, "threads", 0, 0), arguments.text(4));
      });
}
