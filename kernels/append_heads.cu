#include <algorithm>

#include "kernels/cuda/cached.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kWarps = kThreads / kWarp;

enum class HeadKind { kQuery, kKey, kValue };

/// One head of one row, in shared memory between what happens to it. Each step ends where every thread may read all.
struct Head {
  float* x;
  int size;

  template <class Change>
  __device__ void each(const Change& change) const {
    for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) x[i] = change(i, x[i]);
    __syncthreads();
  }
  /// An RMS norm; without a weight, of ones.
  __device__ void normalise(const float* weight, float eps, float* scratch) const {
    float squares = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) squares = fmaf(x[i], x[i], squares);
    const float mean = block_sum(squares, scratch) / static_cast<float>(size);
    const float scale = 1.0f / sqrtf(mean + eps);
    each([&](int i, float value) { return weight == nullptr ? value * scale : weight[i] * (value * scale); });
  }
  __device__ void turn(const float* cosine, int half, int first) const {
    float* turned = x + first;
    for (int i = static_cast<int>(threadIdx.x); i < half; i += kThreads) {
      const float x1 = turned[i];
      const float x2 = turned[i + half];
      turned[i] = fmaf(x1, cosine[i], -(x2 * cosine[half + i]));
      turned[i + half] = fmaf(x2, cosine[i], x1 * cosine[half + i]);
    }
    __syncthreads();
  }
};

__device__ float taken(const HeadInputs& heads, HeadKind kind, std::int64_t t, int head, int head_dim, int i) {
  if (kind == HeadKind::kQuery) return heads.query.row(t)[static_cast<std::int64_t>(head) * head_dim + i];
  if (kind == HeadKind::kValue) return heads.value.row(t)[head * heads.value_stride + i];
  return i < heads.key_dim ? heads.key.row(t)[head * heads.key_stride + i] : heads.shared_key.row(t)[i - heads.key_dim];
}

/// Where a head goes: a query stays.
__device__ HeadPlace place_of(const HeadInputs& heads, HeadKind kind, std::int64_t t, int head, const DeviceRow& row,
                              const DeviceSequence& sequence, const AttentionShape& shape) {
  if (kind == HeadKind::kQuery) {
    return {heads.query.row(t), static_cast<std::int64_t>(head) * shape.head_dim, DType::kFloat32};
  }
  const bool is_key = kind == HeadKind::kKey;
  const int size = is_key ? shape.head_dim : shape.value_size();
  return {is_key ? sequence.keys : sequence.values,
          ((is_key ? shape.first : shape.values()) + static_cast<std::int64_t>(head) * size) * sequence.capacity +
              static_cast<std::int64_t>(row.slot) * size,
          shape.cached};
}

__device__ float temperature_at(const HeadRule& rule, std::int32_t position) {
  const float periods = floorf((static_cast<float>(position) + 1.0f) / rule.temperature_floor);
  return log1pf(periods) * rule.temperature_scale + 1.0f;
}

/// A block per row and head: queries first, then keys, then values.
__global__ void __launch_bounds__(kThreads)
    append_heads_kernel(HeadInputs heads, const std::int32_t* rows, const DeviceRow* row_info,
                        const DeviceSequence* sequences, AttentionShape shape, HeadRule rule) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  int index = static_cast<int>(blockIdx.y);
  HeadKind kind = HeadKind::kQuery;
  if (index >= shape.heads) {
    kind = index < shape.heads + shape.kv_heads ? HeadKind::kKey : HeadKind::kValue;
    index = (index - shape.heads) % shape.kv_heads;
  }
  const DeviceRow row = row_info[t];
  const DeviceSequence& sequence = sequences[row.sequence];
  SharedArena arena;
  float* scratch = arena.take<float>(kWarps);
  const int size = kind == HeadKind::kValue ? shape.value_size() : shape.head_dim;
  const Head head = {arena.take<float>(size), size};
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    head.x[i] = taken(heads, kind, t, index, shape.head_dim, i);
  }
  __syncthreads();
  const float* weight = kind == HeadKind::kQuery ? rule.norms.query : rule.norms.key;
  const bool norm_first = kind != HeadKind::kValue && weight != nullptr && !rule.norm_after;
  if (norm_first) head.normalise(weight, rule.norms.eps, scratch);
  if (rule.clip > 0.0f) {
    head.each([&](int, float value) {
      return value < -rule.clip ? -rule.clip : rule.clip < value ? rule.clip : value;
    });
  }
  if (kind != HeadKind::kValue) {
    const bool is_long = rule.long_cos_sin != nullptr && sequence.text > rule.short_text;
    const float* table = is_long ? rule.long_cos_sin : rule.cos_sin;
    if (rule.half > 0) {
      head.turn(table + static_cast<std::int64_t>(row.position) * 2 * rule.half, rule.half, rule.first_turned);
    }
    if (rule.norm_after) head.normalise(weight, rule.norms.eps, scratch);
  }
  const bool sharpened = kind == HeadKind::kQuery && rule.temperature_floor > 0.0f;
  const float factor = sharpened ? temperature_at(rule, row.position) : 1.0f;
  const HeadPlace to = place_of(heads, kind, t, index, row, sequence, shape);
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) to.put(i, head.x[i] * factor);
}

}  // namespace

void append_heads(const HeadInputs& heads, RowCount rows, const DeviceRow* row_info, const DeviceSequence* sequences,
                  const AttentionShape& shape, const HeadRule& rule, Stream& stream) {
  if (rows.most == 0) return;
  const dim3 grid(static_cast<unsigned>(rows.most), static_cast<unsigned>(shape.heads + 2 * shape.kv_heads));
  const std::size_t bytes =
      arena_bytes<float>(kWarps) + arena_bytes<float>(std::max(shape.head_dim, shape.value_size()));
  launch(append_heads_kernel, grid, kThreads, bytes, stream, heads, rows.actual, row_info, sequences, shape, rule);
}

}  // namespace specmoe::kernels::cuda
