// What the machine gives, beside which the other benchmarks put their figures: bytes read from memory and from each
// cache, multiply-adds in registers, and a barrier of the team that shares a pass.
//
//     bandwidth [--most-megabytes N] [--threads N] [--rounds N] [--output FILE]

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/lines.h"
#include "experiments/benchmarks/machine_limits.h"
#include "kernels/backend.h"
#include "kernels/thread_pool.h"

namespace specmoe::bench {
namespace {

using kernels::Backend;
using kernels::ThreadPool;

constexpr std::int64_t kKilobytes[] = {256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
constexpr std::int64_t kSampleBytes = 16 << 20;
constexpr int kBarriers = 1000;  // of a sample

/// A row of the table.
struct Row {
  std::string what;
  int threads;
  double amount;     // bytes, operations or barriers of a sample
  const char* unit;  // "GB/s", "GFLOP/s"; "us": one takes so long
  std::function<void()> work;
};

class Bandwidth {
 public:
  Bandwidth(int threads, int rounds, const std::string& output)
      : team_(threads), alone_(1), rounds_(rounds), lines_("bandwidth", output) {
    teams_.push_back(&alone_);
    if (team_.size() > 1) teams_.push_back(&team_);
  }

  void run(int most_megabytes) {
    std::printf("%s, %d threads; %s\n", std::string(backend_name(kernels::default_cpu_backend())).c_str(), team_.size(),
                lines_.where().cpu.c_str());
    std::printf("%-26s %7s %30s %7s\n", "what", "threads", "[95 %]", "quiet");
    for (const std::int64_t kilobytes : kKilobytes) {
      if (kilobytes <= std::int64_t{most_megabytes} << 10) read(kilobytes);
    }
    for (const Backend backend : {Backend::kAvx2, Backend::kAvx512, Backend::kAvx512Bf16, Backend::kAmx}) {
      if (kernels::backend_available(backend)) multiply(backend);
    }
    wait();
  }

 private:
  /// A sample reads as much of every size: a small one again and again, of a large one the part that comes next, so
  /// that samples are too short to be disturbed.
  void read(std::int64_t kilobytes) {
    const ReadProbe probe(static_cast<std::size_t>(kilobytes) << 10);
    const auto bytes = static_cast<std::int64_t>(probe.bytes());
    const std::int64_t part = std::min(bytes, kSampleBytes);
    std::vector<kernels::Range> parts(static_cast<std::size_t>(kSampleBytes / part), {0, part});
    const std::string size = kilobytes < 1024 ? concat(kilobytes, " KB") : concat(kilobytes / 1024, " MB");
    std::vector<Row> rows;
    for (ThreadPool* team : teams_) {
      rows.push_back({"read " + size, team->size(), static_cast<double>(kSampleBytes), "GB/s", [&, team] {
                        probe.read(*team, parts);
                        if (bytes == part) return;
                        const std::int64_t next = parts.front().end % bytes;
                        parts.front() = {next, next + part};
                      }});
    }
    measure(rows);
  }

  void multiply(Backend backend) {
    const ArithmeticProbe probe(backend);
    std::vector<Row> rows;
    for (ThreadPool* team : teams_) {
      rows.push_back({concat("multiply-adds ", backend_name(backend)), team->size(), probe.operations(*team), "GFLOP/s",
                      [&probe, team] { probe.run(*team); }});
    }
    measure(rows);
  }

  void wait() {
    std::vector<Row> rows;
    rows.push_back({"barrier", team_.size(), kBarriers, "us", [this] {
                      team_.run([](ThreadPool::Member& member) {
                        for (int i = 0; i < kBarriers; ++i) member.barrier();
                      });
                    }});
    rows.push_back({"run of the team", team_.size(), kBarriers, "us", [this] {
                      for (int i = 0; i < kBarriers; ++i) team_.run([](ThreadPool::Member&) {});
                    }});
    measure(rows);
  }

  /// The rows take turns; each is run once before it is timed, so that its bytes are in a cache and its team is awake.
  void measure(const std::vector<Row>& rows) {
    Interleaved samples;
    for (const Row& row : rows) {
      samples.add_timed(row.what, [&row] {
        row.work();
        const double start = now_s();
        row.work();
        return (now_s() - start) / row.amount;
      });
    }
    samples.run(rounds_);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Interval seconds = samples.seconds(i);
      const bool is_rate = std::string(rows[i].unit) != "us";
      const Interval shown = is_rate ? Interval{1 / seconds.median, 1 / seconds.high, 1 / seconds.low} : seconds;
      const std::string text = interval_text(shown, is_rate ? 1e-9 : 1e6, is_rate ? 1 : 3) + " " + rows[i].unit;
      std::printf("%-26s %7d %30s %4d/%d\n", rows[i].what.c_str(), rows[i].threads, text.c_str(), samples.kept(i),
                  samples.measured());
      std::fflush(stdout);
      lines_.write({{"what", rows[i].what},
                    {"threads", rows[i].threads},
                    {"unit", rows[i].unit},
                    {"seconds", interval_json(seconds)},
                    {"quiet", samples.kept(i)},
                    {"measured", samples.measured()}});
    }
  }

  ThreadPool team_, alone_;
  std::vector<ThreadPool*> teams_;
  int rounds_;
  Lines lines_;
};

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  using namespace specmoe;
  int most_megabytes = 1024, threads = 0, rounds = 9;
  std::string output;
  bench::CommandLine command("bandwidth",
                             "Measures what the machine gives: bytes read, multiply-adds in registers, barriers.");
  command.option("most-megabytes", most_megabytes, 1, "the largest size that is read")
      .threads(threads)
      .option("rounds", rounds, 1, "samples of everything")
      .output(output);
  return command.run(argc, argv, [&] { bench::Bandwidth(threads, rounds, output).run(most_megabytes); });
}
