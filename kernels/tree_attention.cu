#include <algorithm>

#include "kernels/check.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kQueriesPerWarp = 8;
constexpr int kQueries = kWarps * kQueriesPerWarp;  // of a block
constexpr int kTile = kWarp;                        // positions in shared memory at once, one per lane
constexpr int kPartialExtra = 2;  // a partial result: maximum, sum of exponentials, then head_dim sums
constexpr int kMostHeadDim = 256;

static_assert(kAttentionChunk % kTile == 0);

/// A row's keys by logical position: the committed ones, then its staged ancestors by depth.
struct RowKeys {
  const std::uint64_t* ancestors = nullptr;
  std::int32_t words = 0;
  std::int32_t committed = 0;
  std::int32_t length = 0;

  /// Row of the cache that holds logical position `position`, which is below length.
  __device__ std::int32_t slot(std::int32_t position) const {
    if (position < committed) return position;
    std::int32_t wanted = position - committed;
    for (std::int32_t word = 0; word < words; ++word) {
      std::uint64_t bits = ancestors[word];
      const int here = __popcll(bits);
      if (wanted >= here) {
        wanted -= here;
        continue;
      }
      for (; wanted > 0; --wanted) bits &= bits - 1;
      return committed + 64 * word + __ffsll(static_cast<long long>(bits)) - 1;
    }
    return committed;
  }
};

__device__ RowKeys row_keys(const DeviceRow& row, const DeviceSequence& sequence) {
  RowKeys keys;
  keys.words = sequence.words;
  keys.ancestors = sequence.ancestors + static_cast<std::int64_t>(row.own) * sequence.words;
  keys.committed = sequence.committed;
  keys.length = sequence.committed;
  for (std::int32_t word = 0; word < keys.words; ++word) keys.length += __popcll(keys.ancestors[word]);
  return keys;
}

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

struct Job {
  AttentionShape shape;
  const DeviceRow* row_info;
  const DeviceSequence* sequences;
  AttentionTile tile;
  int chunks = 0;  // of the grid
  float* scratch;  // [rows * heads, chunks, head_dim + kPartialExtra]
  int kv_head = 0;

  __device__ int group() const { return shape.heads / shape.kv_heads; }
  __device__ int queries() const { return tile.rows * group(); }
  __device__ int row_of(int query) const { return tile.first_row + query / group(); }
  __device__ int head_of(int query) const { return kv_head * group() + query % group(); }
  __device__ float* partial(int query, int chunk) const {
    const std::int64_t at = static_cast<std::int64_t>(row_of(query)) * shape.heads + head_of(query);
    return scratch + (at * chunks + chunk) * (shape.head_dim + kPartialExtra);
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
struct Shared {
  float* keys;     // [kTile, stride]
  float* values;   // [kTile, stride]
  float* queries;  // [kQueries, dims]
  float* shares;   // [kWarps, kTile]
  unsigned* ticket;
  int dims;    // head_dim rounded up to whole 16 bytes: it is a multiple of 4
  int stride;  // dims + 4

  __device__ explicit Shared(int head_dim) : dims(head_dim), stride(head_dim + 4) {
    SharedArena arena;
    keys = arena.take<float>(kTile * stride);
    values = arena.take<float>(kTile * stride);
    queries = arena.take<float>(kQueries * dims);
    shares = arena.take<float>(kThreads);
    ticket = arena.take<unsigned>(1);
  }
  static std::size_t bytes(int head_dim) {
    return 2 * arena_bytes<float>(kTile * (head_dim + 4)) + arena_bytes<float>(kQueries * head_dim) +
           arena_bytes<float>(kThreads) + arena_bytes<unsigned>(1);
  }
};

/// Copies keys and values of logical positions [first, first + kTile) as this row sees them; zeros past its end. Ends
/// with a barrier.
__device__ void load_tile(const Shared& shared, const Job& job, const RowKeys& keys, const DeviceSequence& sequence,
                          int first) {
  const int parts = shared.dims / 4;
  const std::int64_t head =
      (job.shape.first + static_cast<std::int64_t>(job.kv_head) * job.shape.head_dim) * sequence.capacity;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * parts; i += kThreads) {
    const int position = first + i / parts;
    const bool there = position < keys.length;
    const std::int64_t slot = there ? keys.slot(position) : 0;
    const std::int64_t from = head + slot * job.shape.head_dim + i % parts * 4;
    const int to = i / parts * shared.stride + i % parts * 4;
    copy_async(shared.keys + to, sequence.keys + from, there);
    copy_async(shared.values + to, sequence.values + from, there);
  }
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
}

/// Adds the tile in shared memory to one query's softmax. All sums run over logical positions in one grouping: lanes by
/// position within the tile, tiles in order.
template <int kDims>
__device__ void attend_tile(const Shared& shared, const Job& job, int query, int length, int first,
                            Running<kDims>& running) {
  const int oldest = job.shape.window > 0 ? length - job.shape.window : 0;
  const int position = first + lane_index();
  const float4* q = reinterpret_cast<const float4*>(shared.queries + query * shared.dims);
  const float4* k = reinterpret_cast<const float4*>(shared.keys + lane_index() * shared.stride);
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
    if (d >= shared.dims) break;
    float sum = running.sums[i];
    for (int j = 0; j < kTile; ++j) sum = fmaf(shares[j], shared.values[j * shared.stride + d], sum);
    running.sums[i] = sum;
  }
}

template <int kDims>
__device__ void store_partial(const Job& job, int query, int chunk, const Running<kDims>& running) {
  float* to = job.partial(query, chunk);
  if (lane_index() == 0) {
    to[0] = running.largest;
    to[1] = running.total;
  }
  for (int i = 0; i < kDims; ++i) {
    const int d = lane_index() + i * kWarp;
    if (d < job.shape.head_dim) to[kPartialExtra + d] = running.sums[i];
  }
}

/// One chunk of positions for all queries of the tile.
template <int kDims>
__device__ void attend_chunk(const Shared& shared, const Job& job, int chunk, int longest) {
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
      load_tile(shared, job, keys, sequence, first);
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

/// Puts a query's chunks together, in order.
__device__ void merge(const Job& job, int query, Rows<float> out) {
  const int chunks = (job.keys(job.row_of(query)).length + kAttentionChunk - 1) / kAttentionChunk;
  float* to = out.row(job.row_of(query)) + static_cast<std::int64_t>(job.head_of(query)) * job.shape.head_dim;
  for (int d = lane_index(); d < job.shape.head_dim; d += kWarp) {
    float largest = -INFINITY;
    float total = 0.0f;
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
    to[d] = sum / total;
  }
}

/// A block per chunk, kv head and tile of rows. Of the blocks of one head and tile the last to come merges the chunks.
template <int kDims>
__global__ void __launch_bounds__(kThreads)
    tree_attention_kernel(Rows<const float> qkv, const AttentionTile* tiles, const DeviceRow* row_info,
                          const DeviceSequence* sequences, AttentionShape shape, int chunks, float* scratch,
                          unsigned* counters, Rows<float> out) {
  const int chunk = static_cast<int>(blockIdx.x);
  const Job job = {shape, row_info, sequences, tiles[blockIdx.z], chunks, scratch, static_cast<int>(blockIdx.y)};
  if (job.tile.rows == 0) return;
  const int longest = job.longest();
  const int own_chunks = (longest + kAttentionChunk - 1) / kAttentionChunk;
  if (chunk >= own_chunks) return;

  const Shared shared(shape.head_dim);
  for (int i = static_cast<int>(threadIdx.x); i < job.queries() * shared.dims; i += kThreads) {
    const int query = i / shared.dims;
    shared.queries[i] = qkv.row(job.row_of(query))[job.head_of(query) * shape.head_dim + i % shared.dims];
  }
  __syncthreads();
  attend_chunk<kDims>(shared, job, chunk, longest);
  __syncthreads();
  unsigned* counter = counters + blockIdx.z * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) *shared.ticket = take_ticket(counter);
  __syncthreads();
  if (*shared.ticket + 1 < static_cast<unsigned>(own_chunks)) return;
  if (threadIdx.x == 0) *counter = 0;
  for (int query = warp_index(); query < job.queries(); query += kWarps) merge(job, query, out);
}

}  // namespace

int attention_tile_rows(int group) {
  SPECMOE_CHECK(group <= kQueries, "tree_attention on cuda: expected at most ", kQueries,
                " query heads per kv head, got ", group);
  return kQueries / group;
}

std::int64_t attention_scratch(int rows, const AttentionShape& shape, int chunks) {
  return std::int64_t{rows} * shape.heads * chunks * (shape.head_dim + kPartialExtra);
}

void tree_attention(Rows<const float> qkv, const AttentionTile* tiles, int tile_count, const DeviceRow* row_info,
                    const DeviceSequence* sequences, const AttentionShape& shape, int chunks, float* scratch,
                    unsigned* counters, Rows<float> out, Stream& stream) {
  if (tile_count == 0) return;
  SPECMOE_CHECK(shape.head_dim % 4 == 0 && shape.head_dim <= kMostHeadDim,
                "tree_attention on cuda: head_dim must be a multiple of 4 up to ", kMostHeadDim, ", got ",
                shape.head_dim);
  const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(shape.kv_heads),
                  static_cast<unsigned>(tile_count));
  const auto run = [&](auto kernel) {
    launch(kernel, grid, kThreads, Shared::bytes(shape.head_dim), stream, qkv, tiles, row_info, sequences, shape,
           chunks, scratch, counters, out);
  };
  if (shape.head_dim <= 32) {
    run(tree_attention_kernel<1>);
  } else if (shape.head_dim <= 64) {
    run(tree_attention_kernel<2>);
  } else if (shape.head_dim <= 128) {
    run(tree_attention_kernel<4>);
  } else {
    run(tree_attention_kernel<8>);
  }
}

}  // namespace specmoe::kernels::cuda
