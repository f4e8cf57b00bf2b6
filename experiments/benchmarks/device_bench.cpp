// Times whole decode steps of Mixture-of-Experts shapes with random weights on a CUDA device, beside the bandwidth of a
// device-to-device copy of the same minute.
//     device_bench [OUTPUT.jsonl [SHAPE...]]
// One line per shape and number of rows T: microseconds per step, the distinct experts that its rows chose, the bytes
// that the step must read, and these bytes per second over the copy's bytes (read and written) per second. Then a chunk
// of a prompt, kPrefillRows rows without logits, by the kernels alone and with cuBLASLt (--fast-prefill).
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <vector>

#include "core/logit_rows.h"
#include "core/nn/cuda/decode_step.h"
#include "core/provenance.h"
#include "kernels/check.h"
#include "kernels/cuda/device_order.h"

namespace specmoe {
namespace {

using kernels::DType;
using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceMatrices;
using kernels::cuda::DeviceMatrix;
using kernels::cuda::Stream;
using nn::cuda::DecodeStep;
using nn::cuda::DeviceLayer;
using nn::cuda::DeviceModel;
using nn::cuda::DevicePass;
using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  int hidden, layers, heads, kv_heads, head_dim, inner, experts, chosen, vocab;
};

constexpr Shape kShapes[] = {
    {"bundled", 256, 6, 4, 2, 64, 512, 8, 2, 4096},
    {"mixtral_4_layers", 4096, 4, 32, 8, 128, 14336, 8, 2, 32000},
    {"qwen3_30b_a3b", 2048, 48, 32, 4, 128, 768, 128, 8, 151936},
};
constexpr int kCommitted = 1024;
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

/// A model of random weights. Parts of one random block stand for all of them, each part at an address of its own.
class RandomModel {
 public:
  RandomModel(const Shape& shape, Stream& stream) : shape_(shape), stream_(stream) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    const float scale = 1.0F / std::sqrt(static_cast<float>(shape.hidden));
    for (std::uint16_t& value : block_) value = to_bfloat16(scale * normal(bits));
    model.hidden = shape.hidden;
    model.vocab = shape.vocab;
    model.embedding_dtype = DType::kBFloat16;
    model.embedding = fill(std::size_t(shape.vocab) * shape.hidden * 2);
    model.final_norm.weight = ones(shape.hidden);
    model.head = matrix(shape.vocab, shape.hidden, DType::kBFloat16);
    const float* cos_sin = ones(2 * kCommitted * shape.head_dim);
    for (int i = 0; i < shape.layers; ++i) model.layers.push_back(layer(i, cos_sin));
    const std::size_t cache = std::size_t(shape.layers) * shape.kv_heads * shape.head_dim * capacity() * sizeof(float);
    keys = reinterpret_cast<float*>(zeros(cache));
    values = reinterpret_cast<float*>(zeros(cache));
    stream_.synchronize();
  }
  static int capacity() { return kCommitted + kPrefillRows; }

  DeviceModel model;
  float* keys = nullptr;
  float* values = nullptr;
  double dense_bytes = 0;   // read by every step
  double expert_bytes = 0;  // one expert of one layer

 private:
  static std::uint16_t to_bfloat16(float value) {
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  }
  std::byte* zeros(std::size_t bytes) {
    memory_.emplace_back(bytes);
    stream_.zero(memory_.back().data(), bytes);
    return memory_.back().data();
  }
  std::byte* fill(std::size_t bytes) {
    memory_.emplace_back(bytes);
    const std::size_t size = block_.size() * 2;
    for (std::size_t at = 0; at < bytes; at += size) {
      stream_.copy(memory_.back().data() + at, block_.data(), std::min(size, bytes - at));
    }
    return memory_.back().data();
  }
  const float* ones(std::size_t count) {
    memory_.emplace_back(count * sizeof(float));
    const std::vector<float> values_on_host(count, 0.7F);
    stream_.copy(memory_.back().data(), values_on_host.data(), count * sizeof(float));
    stream_.synchronize();
    return reinterpret_cast<const float*>(memory_.back().data());
  }
  /// The shape of a packed matrix, without its memory.
  static DeviceMatrix shape_of(std::int64_t rows, std::int64_t cols, DType dtype) {
    return {nullptr, rows, cols, kernels::cuda::device_panel_bytes(cols, dtype), dtype};
  }
  static std::size_t bytes_of(const DeviceMatrix& matrix) {
    return static_cast<std::size_t>((matrix.rows + 15) / 16 * matrix.panel_bytes);
  }
  DeviceMatrix matrix(std::int64_t rows, std::int64_t cols, DType dtype) {
    DeviceMatrix result = shape_of(rows, cols, dtype);
    dense_bytes += static_cast<double>(bytes_of(result));
    result.data = fill(bytes_of(result));
    return result;
  }
  DeviceMatrices matrices(std::int64_t rows, std::int64_t cols) {
    const DeviceMatrix shape = shape_of(rows, cols, DType::kBFloat16);
    const std::byte* first = fill(bytes_of(shape) * static_cast<std::size_t>(shape_.experts));
    std::vector<const std::byte*> table;
    for (int e = 0; e < shape_.experts; ++e) table.push_back(first + static_cast<std::size_t>(e) * bytes_of(shape));
    memory_.emplace_back(table.size() * sizeof(table[0]));
    stream_.copy(memory_.back().data(), table.data(), table.size() * sizeof(table[0]));
    stream_.synchronize();
    return {reinterpret_cast<const std::byte* const*>(memory_.back().data()), shape_.experts, shape};
  }
  DeviceLayer layer(int index, const float* cos_sin) {
    const Shape& s = shape_;
    DeviceLayer layer;
    layer.attention_norm.weight = ones(s.hidden);
    layer.ffn_norm.weight = ones(s.hidden);
    layer.qkv = matrix((s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden, DType::kBFloat16);
    layer.output = matrix(s.hidden, s.heads * s.head_dim, DType::kBFloat16);
    layer.attention = {std::int64_t{index} * s.kv_heads * s.head_dim, s.heads, s.kv_heads, s.head_dim, 0, 0.1F};
    layer.heads.cos_sin = cos_sin;
    layer.heads.half = s.head_dim / 2;
    layer.ffn.router = matrix(s.experts, s.hidden, DType::kFloat32);
    layer.ffn.gate_up = matrices(2 * s.inner, s.hidden);
    layer.ffn.down = matrices(s.hidden, s.inner);
    layer.ffn.width = s.inner;
    layer.ffn.routing.experts_per_token = s.chosen;
    expert_bytes = static_cast<double>(bytes_of(layer.ffn.gate_up.shape) + bytes_of(layer.ffn.down.shape));
    return layer;
  }

  Shape shape_;
  Stream& stream_;
  std::vector<std::uint16_t> block_ = std::vector<std::uint16_t>(std::size_t{16} << 20);
  std::vector<DeviceArray<std::byte>> memory_;
};

std::size_t mask_words(int rows) { return static_cast<std::size_t>((rows + 63) / 64); }

/// A chain of `rows` random tokens behind kCommitted positions.
///
/// ancestors  [rows * mask_words(rows)] to be filled
DevicePass chain_pass(const RandomModel& random, int rows, const DeviceArray<std::uint64_t>& ancestors,
                      Stream& stream) {
  std::mt19937 bits(7);
  DevicePass pass;
  const std::size_t words = mask_words(rows);
  std::vector<std::uint64_t> masks(static_cast<std::size_t>(rows) * words);
  for (int t = 0; t < rows; ++t) {
    pass.tokens.push_back(static_cast<std::int32_t>(bits() % static_cast<unsigned>(random.model.vocab)));
    pass.rows.push_back({0, kCommitted + t, kCommitted + t, t});
    pass.wanted.push_back(t);
    for (int ancestor = 0; ancestor <= t; ++ancestor) {
      masks[static_cast<std::size_t>(t) * words + static_cast<std::size_t>(ancestor / 64)] |= std::uint64_t{1}
                                                                                              << ancestor % 64;
    }
  }
  stream.copy(ancestors.data(), masks.data(), masks.size() * sizeof(masks[0]));
  stream.synchronize();
  pass.sequences = {{random.keys, random.values, RandomModel::capacity(), kCommitted, static_cast<std::int32_t>(words),
                     ancestors.data()}};
  pass.longest = kCommitted + rows;
  return pass;
}

double distinct_experts(const DecodeStep& step, const Shape& shape, int rows, Stream& stream) {
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
  std::vector<DeviceMatrix> projections;
  for (const DeviceLayer& layer : random.model.layers) projections.insert(projections.end(), {layer.qkv, layer.output});
  kernels::cuda::DenseLinear dense(kPrefillRows, projections, stream);
  const DeviceArray<std::uint64_t> ancestors(kPrefillRows * mask_words(kPrefillRows));
  DevicePass pass = chain_pass(random, kPrefillRows, ancestors, stream);
  pass.wanted.clear();
  for (const bool fast : {false, true}) {
    DecodeStep step(random.model, {kPrefillRows, 1, RandomModel::capacity()}, stream, fast ? &dense : nullptr);
    step.run(pass);
    const double time_us = time_queued(stream, [&] { step.run_again(); });
    std::printf("prefill of %d%s: %.1f us, %.0f tokens/s\n", kPrefillRows, fast ? " with cuBLASLt" : "", time_us,
                kPrefillRows / time_us * 1e6);
    nlohmann::json line = {{"benchmark", "device_prefill"}, {"shape", shape.name}, {"rows", kPrefillRows},
                           {"committed", kCommitted},       {"cublaslt", fast},    {"chunk_us", time_us}};
    line["provenance"] = provenance;
    out << line.dump() << std::endl;
  }
}

void measure(const Shape& shape, std::ostream& out, const nlohmann::json& provenance, Stream& stream) {
  const double copied = copy_bandwidth(stream);
  const RandomModel random(shape, stream);
  DecodeStep step(random.model, {kMostRows, 1, RandomModel::capacity()}, stream);
  const DeviceArray<std::uint64_t> ancestors(kMostRows * mask_words(kMostRows));
  std::printf("%s, copy %.0f GB/s\n  T  us/step  with upload  experts  GB/s  of copy  r(T)\n", shape.name, copied);
  double plain = 0;
  for (const int rows : kRowCounts) {
    const DevicePass pass = chain_pass(random, rows, ancestors, stream);
    const double with_upload = time_queued(stream, [&] {
      step.run(pass);
      stream.synchronize();
    });
    const double time_us = time_queued(stream, [&] { step.run_again(); });
    if (rows == 1) plain = time_us;
    const double experts = distinct_experts(step, shape, rows, stream);
    const double kv = 2.0 * sizeof(float) * shape.layers * shape.kv_heads * shape.head_dim * (kCommitted + rows);
    const double bytes = random.dense_bytes + experts * shape.layers * random.expert_bytes + kv;
    const double rate = bytes / time_us / 1e3;
    std::printf("%3d %8.1f %12.1f %8.2f %5.0f %8.3f %5.2f\n", rows, time_us, with_upload, experts, rate, rate / copied,
                time_us / plain);
    nlohmann::json line = {{"benchmark", "device_step"},
                           {"shape", shape.name},
                           {"rows", rows},
                           {"committed", kCommitted},
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
  measure_prefill(shape, random, out, provenance, stream);
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
