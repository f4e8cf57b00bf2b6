#pragma once

#include <algorithm>

#include "kernels/cuda/cached.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row_keys.h"

/// What a block of tree_attention.cu does, step by step.
namespace specmoe::kernels::cuda::attention {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * kWarp;
inline constexpr int kQueriesPerWarp = 8;
inline constexpr int kQueries = kWarps * kQueriesPerWarp;  // of a block
inline constexpr int kTile = kWarp;                        // positions in shared memory at once, one per lane
inline constexpr int kPartialExtra = 2;  // a partial result: maximum, sum of exponentials, then head_dim sums

static_assert(kAttentionChunk % kTile == 0 && kQueries == kMostGroup);

/// One query's running softmax, shared by a warp: lane i holds the sums of dimensions i, i + 32, ...
template <int kDims>
struct Running {
  float largest = -INFINITY;
  float total = 0.0f;
  float sums[kDims] = {};

  /// Makes room for scores up to `score` in exponentials relative to `largest`.
  __device__ void raise(float score) {
    if (!(score > largest)) return;
    const float shrink = expf(largest - score);
    total *= shrink;
    for (float& sum : sums) sum *= shrink;
    largest = score;
  }
};

/// What a block attends. kGeneral: the shape is not plain().
template <bool kGeneral>
struct Job {
  AttentionShape shape;
  const DeviceRow* row_info;
  const DeviceSequence* sequences;
  AttentionTile tile;
  int chunks = 0;  // of the grid
  float* scratch;  // [rows * heads, chunks, value_size() + kPartialExtra]
  int kv_head = 0;

  __device__ int value_size() const { return kGeneral ? shape.value_size() : shape.head_dim; }
  __device__ std::int64_t first_value() const { return kGeneral ? shape.values() : shape.first; }
  __device__ int group() const { return shape.heads / shape.kv_heads; }
  __device__ int queries() const { return tile.rows * group(); }
  __device__ int row_of(int query) const { return tile.first_row + query / group(); }
  __device__ int head_of(int query) const { return kv_head * group() + query % group(); }
  __device__ float* partial(int query, int chunk) const {
    const std::int64_t at = static_cast<std::int64_t>(row_of(query)) * shape.heads + head_of(query);
    return scratch + (at * chunks + chunk) * (value_size() + kPartialExtra);
  }
  __device__ RowKeys keys(int row) const {
    const DeviceRow info = row_info[row];
    return row_keys(info, sequences[info.sequence]);
  }
  __device__ int longest() const {
    int length = 0;
    for (int i = 0; i < tile.rows; ++i) {
      const int own = keys(tile.first_row + i).length;
      length = own > length ? own : length;
    }
    return length;
  }
};

/// Shared memory of a block. Rows of keys are 4 floats longer than a head, so that lanes reading 16 bytes each of
/// different rows meet no bank conflicts.
template <bool kGeneral>
struct Shared {
  float* keys;     // [kTile, stride]
  float* values;   // [kTile, value_stride]
  float* queries;  // [kQueries, dims]
  float* shares;   // [kWarps, kTile]
  unsigned* ticket;
  int dims;    // of keys, rounded up to whole 16 bytes with zeros
  int stride;  // dims + 4
  int value_dims;
  int value_stride;

  /// Of position `at` of the tile.
  __device__ float* key(int at) const { return keys + at * stride; }
  __device__ float* value(int at) const { return values + at * value_stride; }

  /// Heads of plain shapes are whole fours, and values as large as keys.
  static constexpr __device__ int rounded(int size) { return kGeneral ? (size + 3) / 4 * 4 : size; }

  __device__ Shared(int head_dim, int value_size) : dims(rounded(head_dim)), stride(dims + 4) {
    value_dims = kGeneral ? rounded(value_size) : dims;
    value_stride = value_dims + 4;
    SharedArena arena;
    keys = arena.take<float>(kTile * stride);
    values = arena.take<float>(kTile * value_stride);
    queries = arena.take<float>(kQueries * dims);
    shares = arena.take<float>(kThreads);
    ticket = arena.take<unsigned>(1);
  }
};

inline std::size_t shared_bytes(const AttentionShape& shape) {
  const int dims = (shape.head_dim + 3) / 4 * 4;
  const int value_dims = (shape.value_size() + 3) / 4 * 4;
  return arena_bytes<float>(kTile * (dims + 4)) + arena_bytes<float>(kTile * (value_dims + 4)) +
         arena_bytes<float>(kQueries * dims) + arena_bytes<float>(kThreads) + arena_bytes<unsigned>(1);
}

/// Whether rows of `size` elements are copied four elements at a time.
template <bool kGeneral>
__device__ bool in_fours(int size) {
  return !kGeneral || size % 4 == 0;
}

/// Starts copying elements [4 * part, 4 * part + 4) of a row of `size`, zeros past its end.
template <bool kGeneral, class Element>
__device__ void copy_part(float* to, const Element* row, int part, int size, bool there) {
  if (in_fours<kGeneral>(size)) {
    copy_async<4 * sizeof(Element)>(to, row + part * 4, there);
  } else {
    for (int i = 0; i < 4; ++i) to[i] = there && part * 4 + i < size ? cached_float(row[part * 4 + i]) : 0.0f;
  }
}

/// Makes floats of the four bfloat16 elements that the calling thread has copied to where they belong.
template <bool kGeneral>
__device__ void widen_part(float* at, int size) {
  if (!in_fours<kGeneral>(size)) return;
  const uint2 pairs = *reinterpret_cast<const uint2*>(at);
  *reinterpret_cast<float4*>(at) = {low_float(pairs.x), high_float(pairs.x), low_float(pairs.y), high_float(pairs.y)};
}

/// Copies keys and values of logical positions [first, first + kTile) as this row sees them; zeros past its end. Ends
/// with a barrier.
template <bool kGeneral, class Element>
__device__ void load_tile(const Shared<kGeneral>& shared, const Job<kGeneral>& job, const RowKeys& keys,
                          const DeviceSequence& sequence, int first) {
  const int key_parts = shared.dims / 4;
  const int value_parts = shared.value_dims / 4;
  const int parts = kGeneral && value_parts > key_parts ? value_parts : key_parts;
  const int head_dim = job.shape.head_dim;
  const int value_size = job.value_size();
  const std::int64_t head = (job.shape.first + static_cast<std::int64_t>(job.kv_head) * head_dim) * sequence.capacity;
  const std::int64_t value_head =
      kGeneral ? (job.first_value() + static_cast<std::int64_t>(job.kv_head) * value_size) * sequence.capacity : head;
  const auto* cached_keys = static_cast<const Element*>(sequence.keys) + head;
  const auto* cached_values = static_cast<const Element*>(sequence.values) + value_head;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * parts; i += kThreads) {
    const int at = i / parts;
    const int part = i % parts;
    const bool there = first + at < keys.length;
    const std::int64_t slot = there ? keys.slot(first + at) : 0;
    if (!kGeneral || part < key_parts) {
      copy_part<kGeneral>(shared.key(at) + part * 4, cached_keys + slot * head_dim, part, head_dim, there);
    }
    if (!kGeneral || part < value_parts) {
      copy_part<kGeneral>(shared.value(at) + part * 4, cached_values + slot * value_size, part, value_size, there);
    }
  }
  commit_copies();
  wait_for_copies<0>();
  if constexpr (sizeof(Element) < sizeof(float)) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * parts; i += kThreads) {
      const int part = i % parts;
      if (!kGeneral || part < key_parts) widen_part<kGeneral>(shared.key(i / parts) + part * 4, head_dim);
      if (!kGeneral || part < value_parts) widen_part<kGeneral>(shared.value(i / parts) + part * 4, value_size);
    }
  }
  __syncthreads();
}

/// Adds the tile in shared memory to one query's softmax. All sums run over logical positions in one grouping: lanes by
/// position within the tile, tiles in order.
template <bool kGeneral, int kDims>
__device__ void attend_tile(const Shared<kGeneral>& shared, const Job<kGeneral>& job, int query, int length, int first,
                            Running<kDims>& running) {
  int oldest = job.shape.window > 0 ? length - job.shape.window : 0;
  if (kGeneral && job.shape.chunk > 0) oldest = std::max(oldest, (length - 1) / job.shape.chunk * job.shape.chunk);
  const int position = first + lane_index();
  const float4* q = reinterpret_cast<const float4*>(shared.queries + query * shared.dims);
  const float4* k = reinterpret_cast<const float4*>(shared.key(lane_index()));
  float score = 0.0f;
  for (int i = 0; i < shared.dims / 4; ++i) {
    score = fmaf(q[i].x, k[i].x, score);
    score = fmaf(q[i].y, k[i].y, score);
    score = fmaf(q[i].z, k[i].z, score);
    score = fmaf(q[i].w, k[i].w, score);
  }
  const bool seen = position < length && position >= oldest;
  score = seen ? score * job.shape.scale : -INFINITY;
  const float largest = warp_max(score);
  if (!(largest > -INFINITY)) return;
  running.raise(largest);
  const float share = seen ? expf(score - running.largest) : 0.0f;
  running.total += warp_sum(share);
  float* shares = shared.shares + warp_index() * kTile;
  __syncwarp();
  shares[lane_index()] = share;
  __syncwarp();
  for (int i = 0; i < kDims; ++i) {
    const int d = lane_index() + i * kWarp;
    if (d >= shared.value_dims) break;
    float sum = running.sums[i];
    for (int j = 0; j < kTile; ++j) sum = fmaf(shares[j], shared.value(j)[d], sum);
    running.sums[i] = sum;
  }
}

template <bool kGeneral, int kDims>
__device__ void store_partial(const Job<kGeneral>& job, int query, int chunk, const Running<kDims>& running) {
  float* to = job.partial(query, chunk);
  if (lane_index() == 0) {
    to[0] = running.largest;
    to[1] = running.total;
  }
  for (int i = 0; i < kDims; ++i) {
    const int d = lane_index() + i * kWarp;
    if (d < job.value_size()) to[kPartialExtra + d] = running.sums[i];
  }
}

/// One chunk of positions for all queries of the tile.
template <bool kGeneral, int kDims, class Element>
__device__ void attend_chunk(const Shared<kGeneral>& shared, const Job<kGeneral>& job, int chunk, int longest) {
  Running<kDims> running[kQueriesPerWarp];
  const DeviceSequence& sequence = job.sequences[job.row_info[job.tile.first_row].sequence];
  const int begin = chunk * kAttentionChunk;
  const int end = std::min(longest, begin + kAttentionChunk);
  for (int first = begin; first < end; first += kTile) {
    // Rows see the same keys among the committed ones; past those each sees its own.
    const bool common = first + kTile <= sequence.committed;
    for (int row = 0; row < (common ? 1 : job.tile.rows); ++row) {
      const RowKeys keys = job.keys(job.tile.first_row + row);
      if (!common && first >= keys.length) continue;
      load_tile<kGeneral, Element>(shared, job, keys, sequence, first);
#pragma unroll
      for (int i = 0; i < kQueriesPerWarp; ++i) {
        const int query = i * kWarps + warp_index();
        if (query >= job.queries() || (!common && query / job.group() != row)) continue;
        const int length = common ? job.keys(job.row_of(query)).length : keys.length;
        attend_tile(shared, job, query, length, first, running[i]);
      }
      __syncthreads();
    }
  }
#pragma unroll
  for (int i = 0; i < kQueriesPerWarp; ++i) {
    const int query = i * kWarps + warp_index();
    if (query < job.queries()) store_partial(job, query, chunk, running[i]);
  }
}

/// Puts a query's chunks together, in order, behind its sink.
template <bool kGeneral>
__device__ void merge(const Job<kGeneral>& job, int query, Rows<float> out) {
  const int chunks = (job.keys(job.row_of(query)).length + kAttentionChunk - 1) / kAttentionChunk;
  const bool sinks = kGeneral && job.shape.sinks != nullptr;
  float* to = out.row(job.row_of(query)) + static_cast<std::int64_t>(job.head_of(query)) * job.value_size();
  for (int d = lane_index(); d < job.value_size(); d += kWarp) {
    float largest = sinks ? job.shape.sinks[job.head_of(query)] : -INFINITY;
    float total = sinks ? 1.0f : 0.0f;
    float sum = 0.0f;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const float* partial = job.partial(query, chunk);
      if (!(partial[0] > -INFINITY)) continue;
      const float top = fmaxf(largest, partial[0]);
      const float old_share = expf(largest - top);
      const float new_share = expf(partial[0] - top);
      total = fmaf(total, old_share, partial[1] * new_share);
      sum = fmaf(sum, old_share, partial[kPartialExtra + d] * new_share);
      largest = top;
    }
    to[d] = kGeneral ? sum / total * job.shape.out_scale : sum / total;
  }
}

}  // namespace specmoe::kernels::cuda::attention
