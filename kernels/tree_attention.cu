#include <type_traits>

#include "kernels/check.h"
#include "kernels/cuda/attention_parts.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {

using namespace attention;

namespace {

/// A block per chunk, kv head and tile of rows. Of the blocks of one head and tile the last to come merges the chunks.
///
/// kDims    32nds of what a value has
/// Element  of keys and values: float or BFloat16
template <bool kGeneral, int kDims, class Element>
__global__ void __launch_bounds__(kThreads)
    tree_attention_kernel(Rows<const float> queries, const AttentionTile* tiles, const DeviceRow* row_info,
                          const DeviceSequence* sequences, AttentionShape shape, int chunks, float* scratch,
                          unsigned* counters, Rows<float> out) {
  const int chunk = static_cast<int>(blockIdx.x);
  const Job<kGeneral> job = {
      shape, row_info, sequences, tiles[blockIdx.z], chunks, scratch, static_cast<int>(blockIdx.y)};
  if (job.tile.rows == 0) return;
  const int longest = job.longest();
  const int own_chunks = (longest + kAttentionChunk - 1) / kAttentionChunk;
  if (chunk >= own_chunks) return;

  const Shared<kGeneral> shared(shape.head_dim, shape.value_size());
  for (int i = static_cast<int>(threadIdx.x); i < job.queries() * shared.dims; i += kThreads) {
    const int query = i / shared.dims;
    const int d = i % shared.dims;
    const float* head = queries.row(job.row_of(query)) + job.head_of(query) * shape.head_dim;
    shared.queries[i] = !kGeneral || d < shape.head_dim ? head[d] : 0.0f;
  }
  __syncthreads();
  attend_chunk<kGeneral, kDims, Element>(shared, job, chunk, longest);
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
  return std::int64_t{rows} * shape.heads * chunks * (shape.value_size() + kPartialExtra);
}

void tree_attention(Rows<const float> queries, const AttentionTile* tiles, int tile_count, const DeviceRow* row_info,
                    const DeviceSequence* sequences, const AttentionShape& shape, int chunks, float* scratch,
                    unsigned* counters, Rows<float> out, Stream& stream) {
  if (tile_count == 0) return;
  SPECMOE_CHECK(std::max(shape.head_dim, shape.value_size()) <= kMostHeadDim,
                "tree_attention on cuda: expected heads of at most ", kMostHeadDim, " elements, got ", shape.head_dim,
                " and values of ", shape.value_size());
  const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(shape.kv_heads),
                  static_cast<unsigned>(tile_count));
  const auto run = [&](auto general, auto dims) {
    const auto kernel = shape.cached == DType::kBFloat16 ? tree_attention_kernel<general, dims, BFloat16>
                                                         : tree_attention_kernel<general, dims, float>;
    launch(kernel, grid, kThreads, shared_bytes(shape), stream, queries, tiles, row_info, sequences, shape, chunks,
           scratch, counters, out);
  };
  const auto choose = [&](auto general) {
    if (shape.value_size() <= 32) {
      run(general, std::integral_constant<int, 1>{});
    } else if (shape.value_size() <= 64) {
      run(general, std::integral_constant<int, 2>{});
    } else if (shape.value_size() <= 128) {
      run(general, std::integral_constant<int, 4>{});
    } else {
      run(general, std::integral_constant<int, 8>{});
    }
  };
  if (shape.plain()) {
    choose(std::false_type{});
  } else {
    choose(std::true_type{});
  }
}

}  // namespace specmoe::kernels::cuda
