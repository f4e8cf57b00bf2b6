// Times the products and the attention of a decoding step beside what the machine can do in the same minute: the read
// bandwidth of the team and the arithmetic rate of one core. Checks every result against the scalar kernels first.
//     kernels_bench [threads] [megabytes of weights]
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "experiments/benchmarks/arguments.h"
#include "kernels/linear.h"
#include "kernels/thread_pool.h"
#include "kernels/tree_attention.h"

namespace specmoe::kernels {
namespace {

constexpr int kRounds = 15;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Work>
double time_once(const Work& work) {
  const double start = seconds();
  work();
  return seconds() - start;
}

/// Reads [begin, end) as four streams.
std::uint64_t read_all(const std::byte* begin, std::size_t bytes) {
  const std::size_t quarter = bytes / 32;
  const auto* words = reinterpret_cast<const std::uint64_t*>(begin);
  std::uint64_t a = 0, b = 0, c = 0, d = 0;
  for (std::size_t i = 0; i < quarter; ++i) {
    a ^= words[i];
    b ^= words[quarter + i];
    c ^= words[2 * quarter + i];
    d ^= words[3 * quarter + i];
  }
  return a ^ b ^ c ^ d;
}

/// Independent fused multiply-adds in registers, GFLOP/s of one core; 0 without AVX2.
__attribute__((target("avx2,fma"))) double fma_rate() {
  constexpr int kSteps = 200000;
  constexpr int kChains = 10;
  __m256 sums[kChains];
#pragma GCC unroll 10
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999f);
  const double start = seconds();
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 10
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, factor);
  }
  const double elapsed = seconds() - start;
  __m256 total = _mm256_setzero_ps();
#pragma GCC unroll 10
  for (int i = 0; i < kChains; ++i) total = _mm256_add_ps(total, sums[i]);
  volatile float keep = _mm256_cvtss_f32(total);
  static_cast<void>(keep);
  return 16.0 * kChains * kSteps / elapsed / 1e9;
}

std::vector<float> wave(std::int64_t n, float step) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    // Cut to a bfloat16, so that back ends that round inputs change nothing.
    const float value = std::sin(step * static_cast<float>(i % 4096));
    values[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xffff0000U);
  }
  return values;
}

PackedMatrix wave_matrix(std::int64_t outputs, std::int64_t inputs, DType dtype, Backend backend) {
  PackedMatrix matrix(outputs, inputs, dtype, backend);
  const std::vector<float> row = wave(inputs, 0.37f);
  for (std::int64_t n = 0; n < outputs; ++n) matrix.pack_rows({row.data(), DType::kFloat32, 1, inputs}, n);
  return matrix;
}

void check_close(const std::vector<float>& got, const std::vector<float>& expected, const char* what) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    SPECMOE_CHECK(std::abs(got[i] - expected[i]) <= 1e-3f + 1e-3f * std::abs(expected[i]), what, " is wrong at ", i,
                  ": got ", got[i], ", scalar gives ", expected[i]);
  }
}

void bench_linear(ThreadPool& pool, Backend backend, std::int64_t inputs, std::int64_t megabytes) {
  const std::int64_t outputs = megabytes * (1 << 20) / 2 / inputs;
  const PackedMatrix weight = wave_matrix(outputs, inputs, DType::kBFloat16, backend);
  const std::vector<float> x = wave(16 * inputs, 0.11f);
  std::vector<float> out(static_cast<std::size_t>(16 * outputs));
  const auto multiply = [&](std::int64_t rows) {
    pool.run([&](ThreadPool::Member& member) {
      packed_linear.up_to(backend)(contiguous(x.data(), rows, inputs), weight, nullptr, {},
                                   contiguous(out.data(), rows, outputs), weight.share(member.shard()));
    });
  };
  multiply(2);
  std::vector<float> expected(32), got(out.begin(), out.begin() + 32);
  const PackedMatrix first = wave_matrix(32, inputs, DType::kBFloat16, backend);
  packed_linear.on(Backend::kScalar)(contiguous(x.data(), 1, inputs), first, nullptr, {},
                                     contiguous(expected.data(), 1, 32), first.share({}));
  check_close(got, expected, "packed_linear");

  const std::int64_t row_counts[] = {1, 2, 4, 8, 16};
  double read = 1e9;
  double best[std::size(row_counts)];
  std::fill(std::begin(best), std::end(best), 1e9);
  std::vector<std::uint64_t> sink(static_cast<std::size_t>(pool.size()));
  for (int round = 0; round < kRounds; ++round) {
    read = std::min(read, time_once([&] {
                      pool.run([&](ThreadPool::Member& member) {
                        const std::size_t share = weight.bytes() / static_cast<std::size_t>(pool.size());
                        const auto index = static_cast<std::size_t>(member.shard().index);
                        sink[index] = read_all(weight.panel(0) + index * share, share);
                      });
                    }));
    for (std::size_t i = 0; i < std::size(row_counts); ++i) {
      best[i] = std::min(best[i], time_once([&] { multiply(row_counts[i]); }));
    }
  }
  const double gigabytes = static_cast<double>(weight.bytes()) / 1e9;
  std::printf("linear K=%-5ld read probe %5.1f GB/s |", static_cast<long>(inputs), gigabytes / read);
  for (std::size_t i = 0; i < std::size(row_counts); ++i) {
    const double rows = static_cast<double>(row_counts[i]);
    std::printf(" T=%.0f %5.1f GB/s (%.2f) %5.1f GFLOP/s |", rows, gigabytes / best[i], read / best[i],
                rows * gigabytes / best[i]);
  }
  std::printf("\n");
}

void bench_attention(Backend backend, std::int64_t head_dim, std::int64_t committed) {
  constexpr std::int64_t kHeads = 2;
  const std::int64_t width = kHeads * head_dim;
  AlignedBytes memory = allocate_aligned(static_cast<std::size_t>(2 * (committed + 8) * head_dim) * sizeof(float));
  auto* keys = reinterpret_cast<float*>(memory.get());
  float* values = keys + (committed + 8) * head_dim;
  const std::vector<float> source = wave(2 * (committed + 8) * head_dim, 0.013f);
  std::copy(source.begin(), source.end(), keys);
  std::vector<float> scratch(static_cast<std::size_t>(attention_scratch_floats(committed + 8, head_dim)));
  std::printf("attention head_dim=%-4ld context %-5ld |", static_cast<long>(head_dim), static_cast<long>(committed));
  for (const std::int64_t rows : {1, 8}) {
    const std::vector<float> query = wave(rows * width, 0.7f);
    std::vector<float> out(query.size()), expected(query.size());
    std::vector<std::uint64_t> ancestors;
    for (std::int64_t t = 0; t < rows; ++t) ancestors.push_back((std::uint64_t{2} << t) - 1);
    const auto attend = [&](Backend on, std::vector<float>& to) {
      tree_attention.up_to(on)(contiguous(query.data(), rows, width), {keys, values, head_dim, head_dim, committed},
                               ancestors.data(), 1, {head_dim, head_dim, 0.1f}, contiguous(to.data(), rows, width),
                               scratch.data());
    };
    attend(Backend::kScalar, expected);
    attend(backend, out);
    check_close(out, expected, "tree_attention");
    double best = 1e9;
    for (int round = 0; round < 20 * kRounds; ++round) best = std::min(best, time_once([&] { attend(backend, out); }));
    std::printf(" T=%ld %7.2f us %5.1f GFLOP/s |", static_cast<long>(rows), best * 1e6,
                4.0 * static_cast<double>(rows * width * committed) / best / 1e9);
  }
  std::printf("\n");
}

void run(int threads, std::int64_t megabytes) {
  const Backend best = default_cpu_backend();
  const Backend backend = best;
  ThreadPool pool(threads);
  std::printf("%s, %d threads, %ld MB of bfloat16 weights; one core in registers: %.0f GFLOP/s\n",
              std::string(backend_name(backend)).c_str(), pool.size(), static_cast<long>(megabytes),
              backend_available(Backend::kAvx2) ? fma_rate() : 0.0);
  for (const std::int64_t inputs : {256, 512, 1024, 2048}) bench_linear(pool, backend, inputs, megabytes);
  for (const std::int64_t head_dim : {32, 64, 128}) {
    for (const std::int64_t committed : {256, 4096}) bench_attention(backend, head_dim, committed);
  }
}

}  // namespace
}  // namespace specmoe::kernels

int main(int argc, char** argv) {
  using specmoe::bench::Arguments;
  return specmoe::bench::main_of(
      argc, argv, "kernels_bench [threads = 0: all cores] [megabytes = 64]", 0, [](const Arguments& arguments) {
        specmoe::kernels::run(arguments.integer(0, "threads", 0, 0), arguments.integer(1, "megabytes", 64, 1));
      });
}
