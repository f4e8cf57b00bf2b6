// The cost of a verify pass: time of a pass of T rows over that of a plain step, r(T), beside what bytes and arithmetic
// allow, on a model's own greedy text.
//
//     verify_curve FOLDER [rounds = 15] [threads = 0: all cores] [output.jsonl]
//
// A sample runs passes of T rows of a chain at successive positions of the text, keeping one row each, so that every T
// sees the same positions and successive passes use the experts that decoding would. Predicted time: the larger of
// bytes (dense weights, distinct experts as counted, keys and values) over the read bandwidth and multiply-adds over
// the arithmetic rate, both measured in the same rounds by the same team. Attention's own arithmetic is not counted.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>

#include "core/logit_rows.h"
#include "core/nn/model_loader.h"
#include "core/provenance.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/machine_limits.h"

namespace specmoe::bench {
namespace {

constexpr int kRowCounts[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32};
constexpr int kMostRows = 32;
constexpr int kContext = 64;  // tokens in the cache before the first pass

/// The cost of what was read and computed, summed over passes.
struct Work {
  double passes = 0;
  double bytes = 0;
  double operations = 0;
  double experts = 0;  // distinct, mean over layers

  Work& operator+=(const Work& other) {
    passes += other.passes;
    bytes += other.bytes;
    operations += other.operations;
    experts += other.experts;
    return *this;
  }
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
    const ModelInfo& info = model_->info();
    Work total;
    cache_->truncate(kContext);
    for (int i = 0; i < passes_; ++i) {
      pass(kContext + i, rows);
      const double layers = result_.moe_layers;
      const double distinct = distinct_experts(info.experts);
      const double chosen = layers * info.experts_per_token * static_cast<double>(info.expert_bytes);
      const double dense = static_cast<double>(info.active_weight_bytes) - chosen;
      const double weights = dense + distinct * static_cast<double>(info.expert_bytes);
      const double keys = static_cast<double>(info.kv_bytes_per_token) * (kContext + i + rows);
      const double width = info.dtype == "float32" ? 4.0 : info.dtype == "bfloat16" ? 2.0 : 1.0;
      total += {1, weights + keys, rows * 2.0 * static_cast<double>(info.active_weight_bytes) / width,
                layers == 0 ? 0 : distinct / layers};
      cache_->keep(std::span<const std::int32_t>(kRoot, 1));
    }
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

  double distinct_experts(int experts) const {
    if (result_.moe_layers == 0) return 0;
    const std::size_t per_layer = result_.experts.size() / static_cast<std::size_t>(result_.moe_layers);
    double distinct = 0;
    std::vector<std::uint8_t> seen;
    for (std::size_t i = 0; i < result_.experts.size(); ++i) {
      if (i % per_layer == 0) seen.assign(static_cast<std::size_t>(experts), 0);
      std::uint8_t& mark = seen[static_cast<std::size_t>(result_.experts[i])];
      distinct += mark == 0;
      mark = 1;
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

void run(const std::string& folder, int rounds, int threads, const char* output) {
  nn::LoadOptions options;
  options.pool = std::make_shared<kernels::ThreadPool>(threads);
  const auto model = nn::load_model(folder, options);
  const ModelInfo& info = model->info();
  kernels::ThreadPool& pool = *options.pool;
  Curve curve(model, info.active_weight_bytes < (64 << 20) ? 24 : 2);
  // Successive passes wander over all weights: a probe of the active ones alone would stay in a cache they do not fit.
  const ReadProbe probe(static_cast<std::size_t>(std::min<std::int64_t>(info.weight_bytes, 1 << 30)));
  const ArithmeticProbe arithmetic(kernels::backend_from_name(info.instruction_set));
  const double probe_runs = std::max(1.0, 8e7 / static_cast<double>(probe.bytes()));

  Interleaved samples;
  samples.add("read", static_cast<double>(probe.bytes()) * probe_runs, [&] {
    for (int i = 0; i < static_cast<int>(probe_runs); ++i) probe.read(pool);
  });
  samples.add("arithmetic", arithmetic.known() ? arithmetic.operations(pool) : 1, [&] {
    if (arithmetic.known()) arithmetic.run(pool);
  });
  std::vector<Work> works;
  for (const int rows : kRowCounts) {
    works.push_back(curve.work(rows));
    samples.add("T=" + std::to_string(rows), curve.passes(), [&curve, rows] { curve.run(rows); });
  }
  samples.run(rounds);

  constexpr std::size_t kFirst = 2;
  const double read = samples.seconds(0).median;
  const double multiply = arithmetic.known() ? samples.seconds(1).median : 0;
  const Provenance where = collect_provenance();
  std::printf("%s, %s, %s, %d threads; %s\n", info.name.c_str(), info.dtype.c_str(), info.instruction_set.c_str(),
              pool.size(), where.cpu.c_str());
  std::printf("read probe of %.1f MB %.1f GB/s", static_cast<double>(probe.bytes()) / 1e6, 1e-9 / read);
  if (multiply > 0) std::printf(", arithmetic %.0f GFLOP/s", 1e-9 / multiply);
  std::printf("\n%4s %8s %8s %24s %22s %9s %9s %7s %7s %6s\n", "T", "experts", "MB", "us a pass [95 %]", "r(T) [95 %]",
              "predicted", "of limit", "GB/s", "GFLOP/s", "quiet");
  std::FILE* lines = output == nullptr ? nullptr : std::fopen(output, "a");
  SPECMOE_CHECK(output == nullptr || lines != nullptr, "cannot write '", output, "'");
  for (std::size_t i = 0; i < std::size(kRowCounts); ++i) {
    const Interval time = samples.seconds(kFirst + i);
    const Interval ratio = samples.ratio(kFirst + i, kFirst);
    const double bytes = works[i].bytes / works[i].passes;
    const double operations = works[i].operations / works[i].passes;
    const double limit = std::max(bytes * read, operations * multiply);
    std::printf("%4d %8.2f %8.1f %24s %22s %9.1f %9.2f %7.1f %7.0f %3d/%d\n", kRowCounts[i],
                works[i].experts / works[i].passes, bytes / 1e6, interval_text(time, 1e6, 1).c_str(),
                interval_text(ratio, 1, 2).c_str(), limit * 1e6, limit / time.median, bytes / time.median / 1e9,
                operations / time.median / 1e9, samples.kept(kFirst + i), samples.measured());
    if (lines == nullptr) continue;
    std::fprintf(lines,
                 "{\"benchmark\": \"verify_curve\", \"model\": \"%s\", \"dtype\": \"%s\", \"instruction_set\": \"%s\", "
                 "\"threads\": %d, \"rows\": %d, \"experts\": %.4f, \"bytes\": %.0f, \"operations\": %.0f, "
                 "\"seconds\": [%.9g, %.9g, %.9g], \"ratio\": [%.5g, %.5g, %.5g], \"read_bytes_per_s\": %.5g, "
                 "\"operations_per_s\": %.5g, \"quiet\": %d, \"measured\": %d, \"cpu\": \"%s\", \"commit\": \"%s\", "
                 "\"started\": \"%s\"}\n",
                 info.name.c_str(), info.dtype.c_str(), info.instruction_set.c_str(), pool.size(), kRowCounts[i],
                 works[i].experts / works[i].passes, bytes, operations, time.median, time.low, time.high, ratio.median,
                 ratio.low, ratio.high, 1 / read, multiply > 0 ? 1 / multiply : 0.0, samples.kept(kFirst + i),
                 samples.measured(), where.cpu.c_str(), where.commit.c_str(), where.started.c_str());
  }
  if (lines != nullptr) std::fclose(lines);
}

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: verify_curve FOLDER [rounds = 15] [threads = 0: all cores] [output.jsonl]\n");
    return 2;
  }
  try {
    specmoe::bench::run(argv[1], argc > 2 ? std::atoi(argv[2]) : 15, argc > 3 ? std::atoi(argv[3]) : 0,
                        argc > 4 ? argv[4] : nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "verify_curve: %s\n", error.what());
    return 1;
  }
  return 0;
}
