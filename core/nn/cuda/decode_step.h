#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "core/nn/cuda/pass_inputs.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/dense_linear.h"
#include "kernels/cuda/plan_sorter.h"

namespace specmoe::nn::cuda {

/// One layer on the device. Norms are [hidden], biases null where there are none.
struct DeviceLayer {
  const float* attention_norm = nullptr;
  const float* ffn_norm = nullptr;
  kernels::cuda::DeviceMatrix qkv;     // [(heads + 2 * kv_heads) * head_dim, hidden]
  kernels::cuda::DeviceMatrix output;  // [hidden, heads * head_dim]
  const float* qkv_bias = nullptr;
  const float* output_bias = nullptr;
  kernels::cuda::AttentionShape attention;
  const float* cos_sin = nullptr;  // [positions, 2 * half]
  int half = 0;
  kernels::cuda::DeviceMatrix router;     // [E, hidden] float32; without rows: a dense layer
  kernels::cuda::DeviceMatrices gate_up;  // [2 * inner, hidden] each, packed with pack_gate_up
  kernels::cuda::DeviceMatrices down;     // [hidden, inner] each
  int inner = 0;
  int experts_per_token = 1;
  bool renormalise = true;
  // Norms of queries and keys before they turn: over each head, or over all heads as one vector. Null: none.
  const float* query_norm = nullptr;  // [head_dim], or [heads * head_dim]
  const float* key_norm = nullptr;    // [head_dim], or [kv_heads * head_dim]
  bool flat_norms = false;
};

/// A decoder-only transformer on the device. Borrowed memory.
struct DeviceModel {
  int hidden = 0;
  int vocab = 0;
  float norm_eps = 1e-5F;
  const void* embedding = nullptr;  // [vocab, hidden]
  kernels::DType embedding_dtype = kernels::DType::kFloat32;
  const float* final_norm = nullptr;
  kernels::cuda::DeviceMatrix head;  // [vocab, hidden]
  std::vector<DeviceLayer> layers;
};

/// The new rows of one pass, on the host.
struct DevicePass {
  std::vector<std::int32_t> tokens;                      // [T]
  std::vector<kernels::cuda::DeviceRow> rows;            // [T]
  std::vector<kernels::cuda::DeviceSequence> sequences;  // their ancestors are those of their new rows
  std::vector<std::int32_t> wanted;                      // rows whose logits are wanted
  int longest = 0;                                       // longest text of a row: committed + depth
};

/// Runs passes of a model on a stream. What a pass reads and writes lies at fixed addresses, and how many rows there
/// are is read on the device: so the launches of a pass are recorded once for each size, and a pass is then one upload,
/// one graph and one download.
class DecodeStep {
 public:
  struct Limits {
    int rows = 256;
    int sequences = 8;
    int positions = 4096;  // longest text
    bool operator==(const Limits&) const = default;
  };

  /// dense  computes the dense projections of whole chunks, see takes_dense(); null: as those of every other row
  DecodeStep(DeviceModel model, Limits limits, kernels::cuda::Stream& stream,
             kernels::cuda::DenseLinear* dense = nullptr);
  const Limits& limits() const { return limits_; }

  /// Queues the pass; the one before must be done. Throws Error when it is larger than the limits.
  void run(const DevicePass& pass);
  /// The same without graphs: every launch by itself.
  void run_directly(const DevicePass& pass);

  /// Queues the last pass once more, as it was: rows that it added to caches are written again.
  void run_again();

  /// Queues a pass whose inputs are written on the device, by what was queued before: into inputs(), for at most `rows`
  /// rows of which at most `wanted` have logits, and texts of at most `longest`. A recorded graph may hold it.
  void queue_written(int rows, int wanted, int longest);
  const PassInputs& inputs() const { return inputs_; }
  /// Entries that the list of tiles of such a pass has, and most rows of one tile.
  static int tile_count(int rows);
  int tile_rows() const;
  static int chunk_count(int longest);

  /// On the device, once the stream has come so far; overwritten by the next pass.
  kernels::Rows<float> logits() const { return logits_.view(limits_.rows, model_.vocab); }  // row i: of wanted[i]
  const std::int32_t* argmax() const { return argmax_.data(); }
  kernels::Rows<float> hidden() const {
    return wanted_normed_.view(limits_.rows, model_.hidden);
  }  // after the last norm
  /// [T, k] of layer `layer`, by rank.
  const std::int32_t* experts(int layer) const { return experts_.data() + expert_offset_[layer]; }
  /// Where those lie in all_experts(), which holds every layer's.
  std::size_t expert_offset(int layer) const { return expert_offset_[layer]; }
  const kernels::cuda::DeviceArray<std::int32_t>& all_experts() const { return experts_; }
  /// [layers] distinct experts over all rows of the pass; 1 in dense layers.
  const std::int32_t* active_experts() const { return plan_active_.data(); }

 private:
  /// Rows a whole number of 16 bytes apart.
  struct Buffer {
    Buffer() = default;
    Buffer(std::int64_t rows, std::int64_t cols, int device)
        : stride((cols + 3) / 4 * 4), memory(static_cast<std::size_t>(rows * stride), device) {}
    kernels::Rows<float> view(std::int64_t rows, std::int64_t cols) const {
      return {memory.data(), rows, cols, stride};
    }
    std::int64_t stride = 0;
    kernels::cuda::DeviceArray<float> memory;
  };
  struct Size {
    int rows = 0;
    int wanted = 0;
    int chunks = 0;
    bool dense = false;
    auto operator<=>(const Size&) const = default;
  };

  static Size size_of(int rows, int wanted, int longest);
  Size upload(const DevicePass& pass);
  /// Whether the rows of a pass are a whole chunk of a text that is only read: of dense_->rows() rows of one sequence
  /// from a multiple of that on, without logits. So which product computes a row is decided by its place in a prompt
  /// and by nothing that plain and speculative decoding do differently.
  bool takes_dense(const DevicePass& pass) const;
  void queue(const Size& size);
  void project(const Size& size, kernels::Rows<const float> x, const kernels::cuda::DeviceMatrix& weight,
               const float* bias, kernels::Rows<const float> residual, kernels::Rows<float> out);
  void attention(const DeviceLayer& layer, const Size& size, kernels::cuda::RowCount rows);
  void feed_forward(const DeviceLayer& layer, int index, kernels::cuda::RowCount rows);

  DeviceModel model_;
  Limits limits_;
  kernels::cuda::Stream& stream_;
  kernels::cuda::DenseLinear* dense_;
  std::map<Size, kernels::cuda::Graph> graphs_;
  Size last_;

  PassInputs inputs_;

  // Written.
  Buffer x_, normed_, qkv_, attended_, router_logits_, hidden_, down_, wanted_rows_, wanted_normed_, logits_;
  kernels::cuda::DeviceArray<float> expert_weight_, attention_scratch_;
  kernels::cuda::DeviceArray<std::int32_t> argmax_, experts_, plan_active_, plan_experts_, plan_offsets_, plan_pairs_;
  kernels::cuda::DeviceArray<unsigned> attention_counters_, down_counters_;
  std::vector<std::size_t> expert_offset_;
  std::unique_ptr<kernels::cuda::PlanSorter> plan_sorter_;  // null: no pass has enough rows
};

}  // namespace specmoe::nn::cuda
