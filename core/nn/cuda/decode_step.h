#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/nn/cuda/device_model.h"
#include "core/nn/cuda/pass_inputs.h"
#include "core/nn/cuda/step_buffers.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/dense_linear.h"
#include "kernels/cuda/plan_sorter.h"

namespace specmoe::nn::cuda {

/// The new rows of one pass, on the host.
struct DevicePass {
  std::vector<std::int32_t> tokens;                      // [T]
  std::vector<kernels::cuda::DeviceRow> rows;            // [T]
  std::vector<kernels::cuda::DeviceSequence> sequences;  // their ancestors are those of their new rows
  std::vector<std::int32_t> wanted;                      // rows whose logits are wanted
  std::vector<int> taps;                                 // boundaries wanted of all rows (ForwardResult::taps)
  int longest = 0;                                       // longest text of a row: committed + depth

  // Of a draft head; empty for blocks.
  std::vector<float> features;          // [T, feature_cols()], zeros behind the last
  std::vector<std::int32_t> handed_on;  // [T] 1: the features are what the head itself handed on
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
    int taps = 0;
    bool operator==(const Limits&) const = default;
  };

  /// dense  computes the dense_products() of whole chunks, see takes_dense(); null: as those of every other row
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
  kernels::Rows<float> logits() const {
    return buffers_.logits.view(limits_.rows, model_.vocab);
  }  // row i: of wanted[i]
  const std::int32_t* argmax() const { return buffers_.argmax.data(); }
  /// [T * taps, hidden] of the last pass, the boundaries of a row one after another.
  kernels::Rows<float> tapped() const;
  /// [T, k] of layer `layer`, by rank.
  const std::int32_t* experts(int layer) const { return buffers_.experts.data() + expert_offset(layer); }
  /// Where those lie in all_experts(), which holds every layer's.
  std::size_t expert_offset(int layer) const { return buffers_.first_expert[static_cast<std::size_t>(layer)]; }
  const kernels::cuda::DeviceArray<std::int32_t>& all_experts() const { return buffers_.experts; }
  /// [layers] distinct experts over all rows of the pass; 1 in dense layers.
  const std::int32_t* active_experts() const { return buffers_.active.data(); }

 private:
  struct Size {
    int rows = 0;
    int wanted = 0;
    int chunks = 0;
    bool dense = false;
    bool context = false;  // rows that a head of blocks only caches
    std::vector<int> taps;
    auto operator<=>(const Size&) const = default;
  };

  static Size size_of(int rows, int wanted, int longest);
  Size upload(const DevicePass& pass);
  /// Whether the rows of a pass are a whole chunk of a text that is only read: of dense_->rows() rows of one sequence
  /// from a multiple of that on, without logits. So which product computes a row is decided by its place in a prompt
  /// and by nothing that plain and speculative decoding do differently.
  bool takes_dense(const DevicePass& pass) const;
  void queue(const Size& size);
  kernels::cuda::RowCount all_rows(const Size& size) const { return {size.rows, inputs_.counts.device}; }
  kernels::Rows<float> rows_of(const RowBuffer& buffer, const Size& size, std::int64_t cols) const {
    return buffer.view(size.rows, cols);
  }
  void upload_features(const DevicePass& pass);
  void embed(const Size& size, float scale, kernels::Rows<float> out);
  void tap(int boundary, const Size& size);
  void head(const Size& size);
  /// A product with one of the matrices that every row meets.
  void project(const Size& size, kernels::Rows<const float> x, const kernels::cuda::DeviceMatrix& weight,
               const float* bias, kernels::Rows<const float> residual, kernels::Rows<float> out);
  /// Without weights, which draft heads lack in places, the rows stay as they are.
  void normalise(kernels::Rows<const float> x, kernels::cuda::RowCount rows, const kernels::cuda::DeviceNorm& norm,
                 kernels::Rows<float> out);

  // decode_fusion.cpp
  void fuse(const Size& size);
  void cache_context(const Size& size);
  void put_features(const Size& size, kernels::Rows<float> to);
  kernels::Rows<const float> attention_input(const DeviceLayer& layer, const Size& size);

  // decode_attention.cpp
  void attention(const DeviceLayer& layer, const Size& size);
  void normalise_flat(const DeviceLayer& layer, const Size& size);
  kernels::Rows<float> append_heads(const DeviceLayer& layer, kernels::Rows<const float> input, const Size& size);
  kernels::Rows<float> append_plain(const DeviceLayer& layer, const Size& size);
  kernels::Rows<float> append_by_rule(const DeviceLayer& layer, const Size& size);
  kernels::cuda::HeadInputs projected(const DeviceLayer& layer, const Size& size) const;
  kernels::cuda::HeadInputs expand_latent(const DeviceLayer& layer, const Size& size);

  // decode_ffn.cpp
  void feed_forward(const DeviceLayer& layer, int index, const Size& size);
  void route(const DeviceFfn& ffn, const kernels::cuda::DevicePlan& plan, int index, const Size& size);
  void shared_up(const DeviceFfn& ffn, const Size& size);
  /// moe_up of normed rows and moe_down; of an expert that is not routed to, every row's, also by dense_.
  void expert_up(const Size& size, bool routed, const kernels::cuda::DeviceMatrices& gate_up,
                 const kernels::cuda::DevicePlan& plan, const kernels::MoeUp& how, kernels::Rows<float> hidden);
  void expert_down(const Size& size, bool routed, kernels::Rows<const float> hidden,
                   const kernels::cuda::DeviceMatrices& down, const kernels::cuda::DevicePlan& plan,
                   const float* weight, const float* bias, kernels::Rows<const float> residual,
                   kernels::Rows<float> out);

  DeviceModel model_;
  Limits limits_;
  kernels::cuda::Stream& stream_;
  kernels::cuda::DenseLinear* dense_;
  std::map<Size, kernels::cuda::Graph> graphs_;
  Size last_;
  PassInputs inputs_;
  StepBuffers buffers_;
  std::unique_ptr<kernels::cuda::PlanSorter> plan_sorter_;  // null: no pass has enough rows
};

}  // namespace specmoe::nn::cuda
