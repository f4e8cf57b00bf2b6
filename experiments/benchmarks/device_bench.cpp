// Times whole decode steps of Mixture-of-Experts shapes, and of a dense one, with random weights on a CUDA device,
// beside the bandwidth of a device-to-device copy of the same minute.
//     device_bench [OUTPUT.jsonl [SHAPE...]]
// One line per shape and number of rows T: microseconds per step, the distinct experts that its rows chose, the bytes
// that the step must read, and these bytes per second over the copy's bytes (read and written) per second. Then a chunk
// of a prompt, kPrefillRows rows without logits, by the kernels alone and with cuBLASLt (--fast-prefill).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <vector>

#include "core/nn/cuda/decode_step.h"
#include "core/nn/cuda/dense_products.h"
#include "core/provenance.h"
#include "experiments/benchmarks/random_device_model.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

using kernels::cuda::DeviceArray;
using kernels::cuda::Stream;
using nn::cuda::DecodeStep;
using nn::cuda::DevicePass;
using nn::cuda::RandomModel;
using nn::cuda::Shape;
using Clock = std::chrono::steady_clock;

constexpr Shape kShapes[] = {
    {"bundled", 256, 6, 4, 2, 64, 512, 8, 2, 4096},
    {"bundled_short", 256, 6, 4, 2, 64, 512, 8, 2, 4096, 128},
    {"llama_8b_4_layers", 4096, 4, 32, 8, 128, 14336, 0, 1, 32000},
    {"mixtral_4_layers", 4096, 4, 32, 8, 128, 14336, 8, 2, 32000},
    {"qwen3_30b_a3b", 2048, 48, 32, 4, 128, 768, 128, 8, 151936},
};
constexpr int kRowCounts[] = {1, 2, 4, 8, 16, 32};
constexpr int kMostRows = 32;

double microseconds(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::micro>(end - begin).count();
}

/// The median over rounds of the time of one call of queue(), several being queued at a time.
template <class Queue>
double time_queued(Stream& stream, const Queue& queue) {
  constexpr int kRounds = 15;
  queue();
  stream.synchronize();
  const Clock::time_point once = Clock::now();
  queue();
  stream.synchronize();
  const int calls = std::clamp(static_cast<int>(20000.0 / microseconds(once, Clock::now())), 3, 500);
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point begin = Clock::now();
    for (int call = 0; call < calls; ++call) queue();
    stream.synchronize();
    times.push_back(microseconds(begin, Clock::now()) / calls);
  }
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

/// Bytes read and written per second, in GB/s.
double copy_bandwidth(Stream& stream) {
  constexpr std::size_t kBytes = std::size_t{2} << 30;
  const DeviceArray<std::byte> from(kBytes), to(kBytes);
  stream.zero(from.data(), kBytes);
  const double time_us = time_queued(stream, [&] { stream.copy(to.data(), from.data(), kBytes); });
  return 2.0 * kBytes / time_us / 1e3;
}

std::size_t mask_words(int rows) { return static_cast<std::size_t>((rows + 63) / 64); }

/// A chain of `rows` random tokens behind those that are committed.
///
/// ancestors  [rows * mask_words(rows)] to be filled
DevicePass chain_pass(const Shape& shape, const RandomModel& random, int rows,
                      const DeviceArray<std::uint64_t>& ancestors, Stream& stream) {
  std::mt19937 bits(7);
  DevicePass pass;
  const std::size_t words = mask_words(rows);
  std::vector<std::uint64_t> masks(static_cast<std::size_t>(rows) * words);
  for (int t = 0; t < rows; ++t) {
    pass.tokens.push_back(static_cast<std::int32_t>(bits() % static_cast<unsigned>(random.model.vocab)));
    pass.rows.push_back({0, shape.committed + t, shape.committed + t, t});
    pass.wanted.push_back(t);
    for (int ancestor = 0; ancestor <= t; ++ancestor) {
      masks[static_cast<std::size_t>(t) * words + static_cast<std::size_t>(ancestor / 64)] |= std::uint64_t{1}
                                                                                              << ancestor % 64;
    }
  }
  stream.copy(ancestors.data(), masks.data(), masks.size() * sizeof(masks[0]));
  stream.synchronize();
  pass.sequences = {{random.keys, random.values, random.capacity(), shape.committed, static_cast<std::int32_t>(words),
                     ancestors.data()}};
  pass.longest = shape.committed + rows;
  return pass;
}

double distinct_experts(const DecodeStep& step, const Shape& shape, int rows, Stream& stream) {
  if (shape.experts == 0) return 1;
  double total = 0;
  for (int layer = 0; layer < shape.layers; ++layer) {
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(rows) * shape.chosen);
    stream.copy(chosen.data(), step.experts(layer), chosen.size() * sizeof(chosen[0]));
    stream.synchronize();
    total += static_cast<double>(std::set<std::int32_t>(chosen.begin(), chosen.end()).size());
  }
  return total / shape.layers;
}

/// A whole chunk of a prompt, with and without cuBLASLt.
void measure_prefill(const Shape& shape, const RandomModel& random, std::ostream& out, const nlohmann::json& provenance,
                     Stream& stream) {
  kernels::cuda::DenseLinear dense(kPrefillRows, nn::cuda::dense_products(random.model), stream);
  const DeviceArray<std::uint64_t> ancestors(kPrefillRows * mask_words(kPrefillRows));
  DevicePass pass = chain_pass(shape, random, kPrefillRows, ancestors, stream);
  pass.wanted.clear();
  for (const bool fast : {false, true}) {
    DecodeStep step(random.model, {kPrefillRows, 1, random.capacity()}, stream, fast ? &dense : nullptr);
    step.run(pass);
    const double time_us = time_queued(stream, [&] { step.run_again(); });
    std::printf("prefill of %d%s: %.1f us, %.0f tokens/s\n", kPrefillRows, fast ? " with cuBLASLt" : "", time_us,
                kPrefillRows / time_us * 1e6);
    nlohmann::json line = {{"benchmark", "device_prefill"}, {"shape", shape.name}, {"rows", kPrefillRows},
                           {"committed", shape.committed},  {"cublaslt", fast},    {"chunk_us", time_us}};
    line["provenance"] = provenance;
    out << line.dump() << std::endl;
  }
}

void measure(const Shape& shape, std::ostream& out, const nlohmann::json& provenance, Stream& stream) {
  const double copied = copy_bandwidth(stream);
  const RandomModel random(shape, stream);
  DecodeStep step(random.model, {kMostRows, 1, random.capacity()}, stream);
  const DeviceArray<std::uint64_t> ancestors(kMostRows * mask_words(kMostRows));
  std::printf("%s, copy %.0f GB/s\n  T  us/step  with upload  experts  GB/s  of copy  r(T)\n", shape.name, copied);
  double plain = 0;
  for (const int rows : kRowCounts) {
    const DevicePass pass = chain_pass(shape, random, rows, ancestors, stream);
    const double with_upload = time_queued(stream, [&] {
      step.run(pass);
      stream.synchronize();
    });
    const double time_us = time_queued(stream, [&] { step.run_again(); });
    if (rows == 1) plain = time_us;
    const double experts = distinct_experts(step, shape, rows, stream);
    const double kv = 2.0 * sizeof(float) * shape.layers * shape.kv_heads * shape.head_dim * (shape.committed + rows);
    const double bytes = random.dense_bytes + experts * shape.layers * random.expert_bytes + kv;
    const double rate = bytes / time_us / 1e3;
    std::printf("%3d %8.1f %12.1f %8.2f %5.0f %8.3f %5.2f\n", rows, time_us, with_upload, experts, rate, rate / copied,
                time_us / plain);
    nlohmann::json line = {{"benchmark", "device_step"},
                           {"shape", shape.name},
                           {"rows", rows},
                           {"committed", shape.committed},
                           {"step_us", time_us},
                           {"step_with_upload_us", with_upload},
                           {"distinct_experts", experts},
                           {"bytes", bytes},
                           {"gb_per_s", rate},
                           {"copy_gb_per_s", copied},
                           {"fraction_of_copy", rate / copied}};
    line["provenance"] = provenance;
    out << line.dump() << std::endl;
  }
  if (shape.committed >= kPrefillRows) measure_prefill(shape, random, out, provenance, stream);
}

int run(int argc, char** argv) {
  SPECMOE_CHECK(kernels::cuda::device_count() > 0, "device_bench: this machine has no CUDA device");
  const kernels::cuda::DeviceInfo device = kernels::cuda::device_info(0);
  std::ofstream out(argc > 1 ? argv[1] : "/dev/null");
  SPECMOE_CHECK(out.good(), "device_bench: cannot write ", argv[1]);
  const Provenance host = collect_provenance();
  const nlohmann::json provenance = {{"commit", host.commit},
                                     {"compiler", host.compiler},
                                     {"cpu", host.cpu},
                                     {"device", device.name},
                                     {"multiprocessors", device.multiprocessors},
                                     {"weights", "random, bfloat16"},
                                     {"started", host.started}};
  Stream stream;
  for (const Shape& shape : kShapes) {
    const bool wanted =
        argc < 3 ||
        std::any_of(argv + 2, argv + argc, [&](const char* name) { return std::string_view(name) == shape.name; });
    if (wanted) measure(shape, out, provenance, stream);
  }
  return 0;
}

}  // namespace
}  // namespace specmoe

int main(int argc, char** argv) {
  try {
    return specmoe::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
