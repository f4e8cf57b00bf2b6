#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/cuda/runtime.h"
#include "kernels/host_device.h"
#include "kernels/linear.h"
#include "kernels/moe_ffn.h"
#include "kernels/moe_router.h"
#include "kernels/packed_matrix.h"
#include "kernels/sampling.h"
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
  DeviceMatrix shape;  // of each; where there is one, that one
};

/// MoePlan on the device, with room for `most` rows.
struct DevicePlan {
  std::int32_t k = 0;
  std::int32_t* active = nullptr;   // [1] number of active experts
  std::int32_t* experts = nullptr;  // [E]
  std::int32_t* offsets = nullptr;  // [E + 1]
  std::int32_t* pairs = nullptr;    // [most * k]
};

/// One sequence of a pass. Its keys are [layer][kv head][capacity][head_dim], its values the same with their own size,
/// both of AttentionShape::cached.
struct DeviceSequence {
  void* keys = nullptr;
  void* values = nullptr;
  std::int32_t capacity = 0;
  std::int32_t committed = 0;
  std::int32_t words = 0;                    // of an ancestor mask
  const std::uint64_t* ancestors = nullptr;  // [new rows, words]: bits of staged rows
  std::int32_t text = 0;                     // tokens of the longest text meant for it: StagedCache::text()
};

/// Where a new row belongs: `slot` is its row in the cache, `own` its number among the sequence's new rows.
struct DeviceRow {
  std::int32_t sequence = 0;
  std::int32_t slot = 0;
  std::int32_t position = 0;  // in the text
  std::int32_t own = 0;
};

/// Shape of one layer's attention. `first` counts the elements per position of all earlier layers' keys.
struct AttentionShape {
  std::int64_t first = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t window = 0;
  float scale = 1.0f;

  // What few layers have.
  std::int32_t value_dim = 0;    // 0: values are as large as keys, and lie as they do
  std::int64_t first_value = 0;  // elements per position of all earlier layers' values; read with a value_dim
  std::int32_t chunk = 0;        // as in AttentionRule
  float out_scale = 1.0f;        // multiplies what comes out
  const float* sinks = nullptr;  // [heads] as in AttentionRule, on the device

  DType cached = DType::kFloat32;  // type of keys and values, or kBFloat16

  std::int64_t query_columns() const { return std::int64_t{heads} * head_dim; }  // of all heads side by side
  std::int64_t key_columns() const { return std::int64_t{kv_heads} * head_dim; }
  SPECMOE_HD std::int32_t value_size() const { return value_dim > 0 ? value_dim : head_dim; }
  SPECMOE_HD std::int64_t values() const { return value_dim > 0 ? first_value : first; }
  /// Whether the kernel for what most layers have takes it.
  bool plain() const {
    return value_dim == 0 && chunk == 0 && out_scale == 1.0f && sinks == nullptr && head_dim % 4 == 0;
  }
};

/// Rows whose queries one block attends together: neighbours of one sequence. At most attention_tile_rows().
struct AttentionTile {
  std::int32_t first_row = 0;
  std::int32_t rows = 0;  // 0: an unused place of the list
};

/// out[t] = scale * row tokens[t] of an embedding [V, D] in float32 or bfloat16.
void embed(const void* embedding, DType dtype, const std::int32_t* tokens, RowCount rows, float scale, Rows<float> out,
           Stream& stream);
/// The same of an embedding that is the output head too.
void embed(const DeviceMatrix& head, const std::int32_t* tokens, RowCount rows, float scale, Rows<float> out,
           Stream& stream);

/// As rms_norm. x.cols need not be a multiple of anything.
void rms_norm(Rows<const float> x, RowCount rows, const float* weight, float eps, Rows<float> out, Stream& stream);

/// The weights of a norm. Without a bias rms_norm, with one layer_norm.
struct DeviceNorm {
  const float* weight = nullptr;  // [D]
  const float* bias = nullptr;    // [D]
};

/// As layer_norm.
void layer_norm(Rows<const float> x, RowCount rows, const DeviceNorm& norm, float eps, Rows<float> out, Stream& stream);

/// x[t] += scale * the norm of branch[t].
void add_normed(Rows<const float> branch, RowCount rows, const DeviceNorm& norm, float eps, float scale, Rows<float> x,
                Stream& stream);

/// out[i] = x[wanted[i]], for the rows that logits are wanted of; wanted null: out[i] = x[i].
void gather_rows(Rows<const float> x, const std::int32_t* wanted, RowCount rows, Rows<float> out, Stream& stream);

/// out[t] = x[t] for the rows whose mark [T] is not 0; as many values as out has columns.
void copy_marked_rows(Rows<const float> x, const std::int32_t* marks, RowCount rows, Rows<float> out, Stream& stream);

/// x += silu(branch).
void add_silu(Rows<const float> branch, RowCount rows, Rows<float> x, Stream& stream);

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

/// Where the heads of new rows are before append_heads().
struct HeadInputs {
  Rows<float> query;             // [T, heads * head_dim], turned in place
  Rows<const float> key;         // head h's begin at column h * key_stride
  std::int64_t key_stride = 0;   // floats
  std::int32_t key_dim = 0;      // elements that are a head's own; the other ones are
  Rows<const float> shared_key;  // [T, head_dim - key_dim], the same for all heads
  Rows<const float> value;
  std::int64_t value_stride = 0;
};

/// What happens to heads between projection and cache, in this order.
struct HeadRule {
  HeadNorms norms;    // of queries and keys; with norm_after of those that have turned
  float clip = 0.0f;  // > 0: queries, keys and values are clamped to +-clip
  // Queries and keys turn from element `first_turned` on, 2 * half elements.
  const float* cos_sin = nullptr;
  std::int32_t half = 0;
  std::int32_t first_turned = 0;
  const float* long_cos_sin = nullptr;  // for sequences whose text is longer than `short_text`
  std::int32_t short_text = 0;
  bool norm_after = false;  // turned queries and keys are normed by `norms`, those without a weight too
  // Queries at position p are multiplied by 1 + temperature_scale * ln(1 + floor((p + 1) / temperature_floor)).
  float temperature_floor = 0.0f;  // 0: they are not
  float temperature_scale = 0.0f;
};

/// As rope_append for layers that ask for more.
void append_heads(const HeadInputs& heads, RowCount rows, const DeviceRow* row_info, const DeviceSequence* sequences,
                  const AttentionShape& shape, const HeadRule& rule, Stream& stream);

inline constexpr int kMostHeadDim = 256;  // elements of a head of keys or values
inline constexpr int kMostGroup = 32;     // query heads per kv head, so that at least one row fits a tile
inline constexpr int kMostExperts = 1024;

/// Rows that fit one AttentionTile. Throws Error when `group` query heads per kv head are more than it can hold.
int attention_tile_rows(int group);
/// Positions per chunk: a row's sums are grouped by chunks of logical positions.
inline constexpr int kAttentionChunk = 128;
/// Floats of scratch for attention over at most `chunks` chunks.
std::int64_t attention_scratch(int rows, const AttentionShape& shape, int chunks);

/// As tree_attention, for all heads and sequences of a pass.
///
/// queries   [T, heads * head_dim] as rope_append or append_heads leave them; more columns are not read
/// tiles     [tile_count] on the device; every row is in one tile
/// chunks    covers the longest text: at least ceil((committed + depth) / kAttentionChunk)
/// counters  [tile_count, kv_heads] zeros; zeros again afterwards
/// out       [T, heads * shape.value_size()]
void tree_attention(Rows<const float> queries, const AttentionTile* tiles, int tile_count, const DeviceRow* row_info,
                    const DeviceSequence* sequences, const AttentionShape& shape, int chunks, float* scratch,
                    unsigned* counters, Rows<float> out, Stream& stream);

class PlanSorter;

/// As moe_router, then MoePlan::build. sorter: makes the plans of passes with many rows; null: they are made like
/// others
void route(Rows<const float> logits, RowCount rows, bool renormalise, std::int32_t* expert, float* weight,
           const DevicePlan& plan, Stream& stream, const PlanSorter* sorter = nullptr);

/// The same for every kind of routing.
///
/// logits       overwritten
/// choice_bias  [E] or null
void route_by_rule(Rows<float> logits, RowCount rows, const Routing& routing, const float* choice_bias,
                   std::int32_t* expert, float* weight, const DevicePlan& plan, Stream& stream,
                   const PlanSorter* sorter = nullptr);

/// The plan of a dense layer or of a shared expert: every row goes to expert 0 with weight `scale`, times
/// sigmoid(gate[t]) where there is a gate [T, 1].
void route_to_one(RowCount rows, Rows<const float> gate, float scale, float* weight, const DevicePlan& plan,
                  Stream& stream);

/// As moe_up; what `how` points to is on the device.
void moe_up(Rows<const float> x, RowCount rows, const DeviceMatrices& gate_up, const DevicePlan& plan, const MoeUp& how,
            Rows<float> hidden, Stream& stream);

/// As moe_down. counters: [ceil(D / 16)] zeros; zeros again afterwards.
void moe_down(Rows<const float> hidden, RowCount rows, const DeviceMatrices& down, const DevicePlan& plan,
              const float* weight, const float* bias, Rows<const float> residual, Rows<float> scratch,
              unsigned* counters, Rows<float> out, Stream& stream);

/// As LogitShape::apply on every row.
void shape_logits(Rows<float> logits, RowCount rows, const LogitShape& shape, Stream& stream);

/// Gives the logits of a smaller vocabulary their places: out[t][n] = logits[t][places[n]], -infinity where places [V]
/// has -1.
void spread_logits(Rows<const float> logits, const std::int32_t* places, RowCount rows, Rows<float> out,
                   Stream& stream);

/// As row_argmax.
void row_argmax(Rows<const float> x, RowCount rows, std::int32_t* argmax, Stream& stream);

/// As sampling_probs, for each row.
void sampling_probs(Rows<const float> logits, RowCount rows, const SamplingRule& rule, Rows<float> probs,
                    Stream& stream);

/// Moves the staged rows that are kept behind the committed ones, in one layer.
///
/// path  [count, most_path] ascending staged rows of each sequence, -1 behind the last
void kv_keep(const DeviceSequence* sequences, int count, const std::int32_t* path, int most_path,
             const AttentionShape& shape, Stream& stream);

}  // namespace specmoe::kernels::cuda
