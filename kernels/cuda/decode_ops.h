#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"
#include "kernels/packed_matrix.h"
#include "kernels/view.h"

/// The operations of a decode step on a device. They compute what the kernels of the same names in kernels/*.h compute,
/// with three differences: views point to device memory, work is queued on a stream, and how many rows there are is
/// read on the device, so that a recorded graph serves every number of rows up to the one it was recorded for.
namespace specmoe::kernels::cuda {

/// `most` sizes the grid; what lies at `actual` on the device, at most `most`, is how many rows are computed.
struct RowCount {
  int most = 0;
  const std::int32_t* actual = nullptr;
};

/// A weight on the device, its panels in the order of device_order.h.
struct DeviceMatrix {
  const std::byte* data = nullptr;
  std::int64_t rows = 0;  // outputs N
  std::int64_t cols = 0;  // inputs K
  std::int64_t panel_bytes = 0;
  DType dtype = DType::kFloat32;
};

/// E matrices of one shape: `data` [E] is on the device.
struct DeviceMatrices {
  const std::byte* const* data = nullptr;
  std::int64_t experts = 0;
  DeviceMatrix shape;  // its data is not used
};

/// MoePlan on the device, with room for `most` rows.
struct DevicePlan {
  std::int32_t k = 0;
  std::int32_t* active = nullptr;   // [1] number of active experts
  std::int32_t* experts = nullptr;  // [E]
  std::int32_t* offsets = nullptr;  // [E + 1]
  std::int32_t* pairs = nullptr;    // [most * k]
};

/// One sequence of a pass. Its keys are [layer][kv head][capacity][head_dim], its values the same.
struct DeviceSequence {
  float* keys = nullptr;
  float* values = nullptr;
  std::int32_t capacity = 0;
  std::int32_t committed = 0;
  std::int32_t words = 0;                    // of an ancestor mask
  const std::uint64_t* ancestors = nullptr;  // [new rows, words]: bits of staged rows
};

/// Where a new row belongs: `slot` is its row in the cache, `own` its number among the sequence's new rows.
struct DeviceRow {
  std::int32_t sequence = 0;
  std::int32_t slot = 0;
  std::int32_t position = 0;  // in the text
  std::int32_t own = 0;
};

/// Shape of one layer's attention. `first` counts the floats per position of all earlier layers' keys.
struct AttentionShape {
  std::int64_t first = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t window = 0;
  float scale = 1.0f;
};

/// Rows whose queries one block attends together: neighbours of one sequence. At most attention_tile_rows().
struct AttentionTile {
  std::int32_t first_row = 0;
  std::int32_t rows = 0;  // 0: an unused place of the list
};

/// out[t] = row tokens[t] of an embedding [V, D] in float32 or bfloat16.
void embed(const void* embedding, DType dtype, const std::int32_t* tokens, RowCount rows, Rows<float> out,
           Stream& stream);

/// As rms_norm. x.cols need not be a multiple of anything.
void rms_norm(Rows<const float> x, RowCount rows, const float* weight, float eps, Rows<float> out, Stream& stream);

/// out[i] = x[wanted[i]], for the rows that logits are wanted of.
void gather_rows(Rows<const float> x, const std::int32_t* wanted, RowCount rows, Rows<float> out, Stream& stream);

/// As packed_linear. x must have an even stride and start at a multiple of 8 bytes.
void packed_linear(Rows<const float> x, RowCount rows, const DeviceMatrix& weight, const float* bias,
                   Rows<const float> residual, Rows<float> out, Stream& stream);

/// Norms of each query head and of each key head before they turn: weights [head_dim], null for none.
struct HeadNorms {
  const float* query = nullptr;
  const float* key = nullptr;
  float eps = 0.0f;
};

/// Turns queries in place; turns keys and writes them and the values to the cache.
///
/// qkv      [T, (heads + 2 * kv_heads) * head_dim]
/// cos_sin  [positions, 2 * half] as in rope
void rope_append(Rows<float> qkv, RowCount rows, const DeviceRow* row_info, const DeviceSequence* sequences,
                 const AttentionShape& shape, const HeadNorms& norms, const float* cos_sin, std::int32_t half,
                 Stream& stream);

/// Rows that fit one AttentionTile. Throws Error when `group` query heads per kv head are more than it can hold.
int attention_tile_rows(int group);
/// Positions per chunk: a row's sums are grouped by chunks of logical positions.
inline constexpr int kAttentionChunk = 128;
/// Floats of scratch for attention over at most `chunks` chunks.
std::int64_t attention_scratch(int rows, const AttentionShape& shape, int chunks);

/// As tree_attention, for all heads and sequences of a pass.
///
/// qkv       as rope_append leaves it; only queries are read
/// tiles     [tile_count] on the device; every row is in one tile
/// chunks    covers the longest text: at least ceil((committed + depth) / kAttentionChunk)
/// counters  [tile_count, kv_heads] zeros; zeros again afterwards
/// out       [T, heads * head_dim]
void tree_attention(Rows<const float> qkv, const AttentionTile* tiles, int tile_count, const DeviceRow* row_info,
                    const DeviceSequence* sequences, const AttentionShape& shape, int chunks, float* scratch,
                    unsigned* counters, Rows<float> out, Stream& stream);

class PlanSorter;

/// As moe_router, then MoePlan::build. sorter: makes the plans of passes with many rows; null: they are made like
/// others
void route(Rows<const float> logits, RowCount rows, bool renormalise, std::int32_t* expert, float* weight,
           const DevicePlan& plan, Stream& stream, const PlanSorter* sorter = nullptr);

/// The plan of a dense layer: every row goes to expert 0 with weight 1.
void route_to_one(RowCount rows, float* weight, const DevicePlan& plan, Stream& stream);

/// As moe_up.
void moe_up(Rows<const float> x, RowCount rows, const DeviceMatrices& gate_up, const DevicePlan& plan,
            Rows<float> hidden, Stream& stream);

/// As moe_down. counters: [ceil(D / 16)] zeros; zeros again afterwards.
void moe_down(Rows<const float> hidden, RowCount rows, const DeviceMatrices& down, const DevicePlan& plan,
              const float* weight, Rows<const float> residual, Rows<float> scratch, unsigned* counters, Rows<float> out,
              Stream& stream);

/// gate[t] = silu(gate[t]) * up[t], in place.
void silu_times(Rows<float> gate, RowCount rows, Rows<const float> up, Stream& stream);

/// As row_argmax.
void row_argmax(Rows<const float> x, RowCount rows, std::int32_t* argmax, Stream& stream);

/// As sampling_probs, for each row.
void sampling_probs(Rows<const float> logits, RowCount rows, float temperature, std::int64_t top_k, float top_p,
                    Rows<float> probs, Stream& stream);

/// Moves the staged rows that are kept behind the committed ones, in one layer.
///
/// path  [count, most_path] ascending staged rows of each sequence, -1 behind the last
void kv_keep(const DeviceSequence* sequences, int count, const std::int32_t* path, int most_path,
             const AttentionShape& shape, Stream& stream);

}  // namespace specmoe::kernels::cuda
