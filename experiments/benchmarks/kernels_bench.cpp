// Every kernel of a decoding step on the CPU: checked against the scalar kernel, then timed beside reading as many
// bytes and beside multiply-adds in registers, by the same threads in the same rounds.
//
//     kernels_bench [--threads N] [--megabytes N] [--rounds N] [--op NAME] [--output FILE]
//
// Products and attention are split over the team and include waking it; what every thread of a model does for itself
// runs on one. "us" is a call; "of reading" is the time that reading its bytes takes over it, "of regs" the same of its
// operations, so 1 is the limit of the machine; bytes written count like bytes read, so a short row that stays in the
// first-level cache can pass it. A sample repeats a call: what fits into a cache comes from there, in the call as in
// the reading. Operations of choosing and of exponentials are not counted.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "experiments/benchmarks/attention_cases.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/linear_cases.h"
#include "experiments/benchmarks/lines.h"
#include "experiments/benchmarks/machine_limits.h"
#include "experiments/benchmarks/moe_cases.h"
#include "experiments/benchmarks/row_cases.h"

namespace specmoe::bench {
namespace {

constexpr double kSampleSeconds = 2e-4;          // at least, about
constexpr std::int64_t kSampleBytes = 16 << 20;  // likewise, of reading
constexpr std::int64_t kLeastBuffer = 16 << 10;  // less is not read faster: a core has that much next to it

/// Cases that share memory, which is there only while they run.
struct Group {
  std::vector<std::string> ops;
  std::function<std::vector<Case>(const Setup&)> cases;
};

std::vector<Group> groups() {
  std::vector<Group> all;
  for (const std::int64_t inputs : {512, 2048}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
      all.push_back(
          {{"packed_linear", "linear_argmax"}, [=](const Setup& setup) { return linear_cases(setup, dtype, inputs); }});
    }
  }
  for (const auto& [experts, k] : {std::pair{8, 2}, {64, 8}}) {
    all.push_back({{"moe_up"}, [=](const Setup& setup) { return moe_up_cases(setup, experts, k); }});
    all.push_back({{"moe_down"}, [=](const Setup& setup) { return moe_down_cases(setup, experts, k); }});
  }
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const std::int64_t head_dim : {64, 128}) {
      all.push_back({{"tree_attention"}, [=](const Setup& setup) { return attention_cases(setup, dtype, head_dim); }});
    }
  }
  all.push_back({{"moe_router"}, router_cases});
  all.push_back({{"rms_norm", "layer_norm"}, norm_cases});
  all.push_back({{"rope"}, rope_cases});
  all.push_back({{"row_argmax"}, argmax_cases});
  all.push_back({{"sampling_probs"}, sampling_cases});
  return all;
}

void check_name(const std::string& wanted) {
  std::string known;
  for (const Group& group : groups()) {
    for (const std::string& op : group.ops) {
      if (op.starts_with(wanted)) return;
      if (known.find(op) == std::string::npos) known += (known.empty() ? "" : ", ") + op;
    }
  }
  fail("no op starts with '", wanted, "'; there are ", known);
}

/// Reads as a case does, often enough for a sample.
class Reading {
 public:
  explicit Reading(const Case& what) : team_(*what.team), probe_(buffer(what)) {
    std::vector<Range> once = what.reads;
    if (once.empty()) once.push_back({0, static_cast<std::int64_t>(probe_.bytes())});
    std::int64_t bytes = 0;
    for (const Range& part : once) bytes += part.end - part.begin;
    for (std::int64_t read = 0; read == 0 || read < kSampleBytes; read += bytes) {
      parts_.insert(parts_.end(), once.begin(), once.end());
      bytes_ += static_cast<double>(bytes);
    }
  }

  double bytes() const { return bytes_; }
  void run() const { probe_.read(team_, parts_); }

 private:
  static std::size_t buffer(const Case& what) {
    std::int64_t end = what.reads.empty() ? std::max(kLeastBuffer, static_cast<std::int64_t>(what.bytes)) : 0;
    for (const Range& part : what.reads) end = std::max(end, part.end);
    return static_cast<std::size_t>(end);
  }

  ThreadPool& team_;
  ReadProbe probe_;
  std::vector<Range> parts_;
  double bytes_ = 0;
};

struct Measured {
  Interval call;                        // seconds
  double reading = 0, multiplying = 0;  // seconds that the bytes and the operations of a call take; NaN: not counted
  int quiet = 0, rounds = 0;
};

Measured measure(const Case& what, int rounds) {
  what.run();
  const double start = now_s();
  what.run();
  const int repeats = std::max(1, static_cast<int>(kSampleSeconds / std::max(1e-9, now_s() - start)));
  const Reading reading(what);
  const ArithmeticProbe arithmetic(what.arithmetic);
  const bool counted = what.operations > 0 && arithmetic.known();

  Interleaved samples;
  // What comes first brings caches and the team to where they are between two calls.
  samples.add_timed("call", [&] {
    what.run();
    const double begin = now_s();
    for (int i = 0; i < repeats; ++i) what.run();
    return (now_s() - begin) / repeats / what.calls;
  });
  samples.add_timed("reading", [&] {
    reading.run();
    const double begin = now_s();
    reading.run();
    return (now_s() - begin) / reading.bytes();
  });
  if (counted) samples.add("multiplying", arithmetic.operations(*what.team), [&] { arithmetic.run(*what.team); });
  samples.run(rounds);
  return {samples.seconds(0), samples.seconds(1).median * what.bytes,
          counted ? samples.seconds(2).median * what.operations : std::nan(""), samples.kept(0), samples.measured()};
}

std::string number(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::isnan(value) ? "-" : text;
}

void print(const Case& what, const Measured& time) {
  const double operations = what.operations > 0 ? what.operations : std::nan("");
  std::printf("%-14s %-42s %3d %28s %7.1f %10.2f %8s %8s %3d/%d\n", what.op.c_str(), what.text().c_str(),
              static_cast<int>(what.rows), interval_text(time.call, 1e6, time.call.median < 1e-5 ? 3 : 1).c_str(),
              what.bytes / time.call.median / 1e9, time.reading / time.call.median,
              number(operations / time.call.median / 1e9, 1).c_str(),
              number(time.multiplying / time.call.median, 2).c_str(), time.quiet, time.rounds);
  std::fflush(stdout);
}

nlohmann::json line(const Case& what, const Measured& time) {
  return {{"op", what.op},
          {"shape", what.shape},
          {"rows", what.rows},
          {"threads", what.team->size()},
          {"bytes", what.bytes},
          {"operations", what.operations},
          {"seconds", interval_json(time.call)},
          {"read_seconds", time.reading},
          {"multiply_seconds", time.multiplying},
          {"quiet", time.quiet},
          {"measured", time.rounds}};
}

void run(const Setup& setup, int rounds, const std::string& op, Lines& lines) {
  std::printf("%s, %d threads, %.0f MB of weights of a product; %s\n", std::string(backend_name(setup.backend)).c_str(),
              setup.team.size(), static_cast<double>(setup.weight_bytes) / (1 << 20), lines.where().cpu.c_str());
  std::printf("%-14s %-42s %3s %28s %7s %10s %8s %8s %5s\n", "op", "shape", "T", "us [95 %]", "GB/s", "of reading",
              "GFLOP/s", "of regs", "quiet");
  for (const Group& group : groups()) {
    if (std::none_of(group.ops.begin(), group.ops.end(), [&](const auto& name) { return name.starts_with(op); })) {
      continue;
    }
    for (const Case& what : group.cases(setup)) {
      if (!what.op.starts_with(op)) continue;
      const std::string wrong = what.check();
      SPECMOE_CHECK(wrong.empty(), what.op, " ", what.text(), " T=", what.rows, " is wrong at ", wrong);
      const Measured time = measure(what, rounds);
      print(what, time);
      lines.write(line(what, time));
    }
  }
}

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  using namespace specmoe;
  int threads = 0, megabytes = 64, rounds = 15;
  std::string op, output;
  bench::CommandLine command("kernels_bench",
                             "Times every kernel of a decoding step, checked against the scalar one, beside reading as "
                             "many bytes and beside multiply-adds in registers.");
  command.threads(threads)
      .option("megabytes", megabytes, 1, "weights of a product")
      .option("rounds", rounds, 1, "samples of everything")
      .option("op", op, "only kernels whose name begins so")
      .output(output);
  return command.run(argc, argv, [&] {
    bench::check_name(op);
    bench::Lines lines("kernels_bench", output);
    kernels::ThreadPool team(threads), alone(1);
    const kernels::Backend backend = kernels::default_cpu_backend();
    lines.always({{"instruction_set", kernels::backend_name(backend)}});
    bench::run({team, alone, backend, std::int64_t{megabytes} << 20}, rounds, op, lines);
  });
}
