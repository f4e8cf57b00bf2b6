#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/types.h"
#include "kernels/activation.h"
#include "kernels/moe_router.h"

namespace specmoe::nn {

enum class RopeKind { kDefault, kLinear, kDynamic, kLlama3, kYarn, kLongrope };

/// How positions turn heads, with every default resolved. rope_frequencies() gives the angles.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  int rotary_dim = 0;        // leading elements of a head that turn
  bool interleaved = false;  // element 2j turns with 2j + 1 instead of j with j + rotary_dim / 2
  double theta = 10000.0;
  double factor = 1.0;
  double original_positions = 0.0;     // llama3, yarn, longrope: context before the stretch
  double low_frequency_factor = 1.0;   // llama3
  double high_frequency_factor = 4.0;  // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  bool truncate = true;                // yarn: whole correction dimensions
  double attention_factor = 1.0;       // multiplies cosines and sines

  // longrope: [rotary_dim / 2] what divides each frequency. A cache meant for texts longer than original_positions uses
  // the long factors from its first token on, since cached keys cannot turn again.
  std::vector<double> short_factors, long_factors;
  double long_attention_factor = 1.0;  // in place of attention_factor with long_factors

  bool operator==(const RopeSpec&) const = default;
};

enum class NormKind {
  kRms,         // w * x / sqrt(mean(x^2) + eps)
  kRmsPlusOne,  // the same with 1 + w
  kLayer,       // w * (x - mean(x)) / sqrt(var(x) + eps) + b
};

enum class QkNorm {
  kNone,
  kPerHead,      // over each head before it turns; one weight [head_dim] for all query heads, one for all key heads
  kFlat,         // over the whole projection before it turns; weights [heads * head_dim], [kv_heads * head_dim]
  kL2AfterRope,  // over each head after it has turned; RMS without a weight
  kPerHeadAfterRope,  // as kPerHead, but after it has turned
};

/// Queries at position p are multiplied by 1 + scale * ln(1 + floor((p + 1) / floor)), so that long texts do not blur
/// the scores of layers that know no positions.
struct TemperatureSpec {
  double floor = 8192.0;
  double scale = 0.1;
};

/// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): queries, and keys with values, pass through vectors of
/// low rank. A head is [nope_dim, rope_dim]; its rope part turns, and that of the keys is one for all heads.
struct LatentSpec {
  int query_rank = 0;  // 0: queries come from one plain projection
  int kv_rank = 0;
  int nope_dim = 0;
  int rope_dim = 0;
  int value_dim = 0;
  float norm_eps = 1e-6F;  // RMS norm of the low-rank vectors
};

/// Grouped-query attention: query head h reads kv head h / (heads / kv_heads). Order of things: projection and bias,
/// qk_norm, clip, rope, qk_norm that comes after it, temperature.
struct AttentionSpec {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;       // of queries and keys; with latent: nope_dim + rope_dim
  float scale = 1.0F;     // multiplies scores
  int window = 0;         // W > 0: position p sees keys at positions > p - W
  int chunk = 0;          // C > 0: position p sees keys of its own chunk p / C
  bool qkv_bias = false;  // with latent: of the projections to low rank
  bool output_bias = false;
  bool whole_block = false;  // rows that are staged together see each other all, not their ancestors alone
  bool sinks = false;        // one more logit per query head: it takes weight in the softmax and adds no value
  float clip = 0.0F;         // > 0: queries, keys and values are clamped to +-clip
  QkNorm qk_norm = QkNorm::kNone;
  std::optional<RopeSpec> rope;  // nothing: the layer knows no positions. With latent: rotary_dim = rope_dim
  std::optional<TemperatureSpec> temperature;
  std::optional<LatentSpec> latent;

  int value_dim() const { return latent ? latent->value_dim : head_dim; }
};

/// Which experts, and with what weights: see kernels::Routing.
struct RouterSpec : kernels::Routing {
  int experts = 0;
  bool logit_bias = false;    // added to the logits
  bool choice_bias = false;   // added to the scores while choosing, not to the weights
  bool scales_input = false;  // the weight multiplies the expert's input, not its output
};

/// An expert that every token uses beside the chosen ones.
struct SharedExpertSpec {
  int width = 0;
  bool gated = false;  // its output is multiplied by sigmoid(gate x)
};

/// down(activation(gate x, up x)), once, or per chosen expert when there is a router.
struct FfnSpec {
  int width = 0;      // outputs of gate and of up, per expert
  bool bias = false;  // gate, up and down have biases (the shared expert never has)
  kernels::Activation activation;
  std::optional<RouterSpec> router;
  std::optional<SharedExpertSpec> shared;  // only with a router
};

struct LayerSpec {
  AttentionSpec attention;
  FfnSpec ffn;
};

/// How the matrices of all experts lie in one tensor.
enum class FusedLayout {
  kRows,                   // [experts, 2 * width, hidden] gate rows first, and [experts, hidden, width]
  kTransposed,             // [experts, hidden, 2 * width] gate columns first, and [experts, width, hidden]
  kTransposedInterleaved,  // the same with gate in even columns and up in odd ones
};

/// Where a checkpoint keeps each tensor: alternatives, the first that exists is taken. Names come without a leading
/// "model."; {layer} and {expert} stand for numbers. Linear layers are stems, to which .weight and .bias are added;
/// everything else is a whole name. Names of parts that a spec does not have are never looked up.
struct TensorNames {
  using Alternatives = std::vector<std::string>;
  Alternatives embedding, final_norm, head;
  Alternatives attention_norm, query, key, value, output;
  Alternatives ffn_norm, gate, up, down;
  Alternatives router, expert_gate, expert_up, expert_down;  // those of experts are stems
  /// In mxfp4 the two fused tensors are NAME_blocks and NAME_scales, never transposed: [experts, outputs, inputs / 32,
  /// 16] and [experts, outputs, inputs / 32], gate and up rows interleaved when the layout is.
  Alternatives fused_gate_up, fused_down;
  FusedLayout fused_layout = FusedLayout::kRows;

  Alternatives attention_norm_bias, ffn_norm_bias, final_norm_bias, head_bias;  // NormKind::kLayer, head_bias
  Alternatives attention_out_norm, ffn_out_norm;                                // BlockOrder::kSandwich
  Alternatives query_norm, key_norm;                                            // kPerHead, kFlat, kPerHeadAfterRope
  Alternatives sinks;                                                           // [heads]
  Alternatives query_down, query_down_norm, query_up;  // latent with a query_rank; stem, name, stem
  Alternatives kv_down, kv_down_norm, kv_up;           // latent; stem, name, stem
  Alternatives router_bias, choice_bias;               // [experts]
  Alternatives fused_gate_up_bias, fused_down_bias;    // [experts, 2 * width] ordered as the layout, [experts, hidden]
  Alternatives shared_gate, shared_up, shared_down;    // stems
  Alternatives shared_scale;                           // [1, hidden] the gate of a gated shared expert
  Alternatives fusion;                                 // FusionSpec: stem of fc
  Alternatives embedding_norm;                         // FusionSpec
  std::vector<Alternatives> feature_norms;             // FusionSpec: of each tap, or one

  std::vector<std::string> ignored;  // prefixes of tensors that this model does not use, such as "layers.61."
};

enum class BlockOrder {
  kPreNorm,   // x += f(norm(x))
  kSandwich,  // x += out_norm(f(norm(x)))
};

/// How linear weights are compressed on disk; they are expanded while they are packed.
enum class Quantization {
  kNone,
  kMxfp4,     // fused experts: 4-bit floats, blocks of 32 share a power of two
  kFp8Block,  // F8_E4M3 NAME with float32 NAME_scale_inv per block of fp8_block_rows x fp8_block_cols
  kInt8,      // I8 NAME with float32 NAME_scale per output; fused experts are never transposed (convert_checkpoint)
};

enum class FeatureNorm {
  kNone,
  kEach,   // every tapped row by itself
  kWhole,  // all taps of a token as one row
  kAfter,  // what fc makes of them
};

/// How a draft head makes the rows of its one layer out of tokens and of features: tapped rows of its target, `taps` of
/// `tap_size` a row, or hidden_size values that it handed on itself (DraftHead).
struct FusionSpec {
  /// > 0: DFlash (arXiv:2602.06036). Rows with features are the target's text, norm(fc(features)): every layer caches
  /// keys and values of them, and nothing else is made of them. Rows without are tokens as in any model, a block of so
  /// many, which attend to those and to each other. Embedding and output matrix are the target's.
  int block_size = 0;
  /// EAGLE-3 (arXiv:2503.01840): the stream is fc(tapped rows), or what was handed on as it is; attention reads
  /// [norm(embedding), norm(stream)]. Otherwise the stream is fc([embedding, features]) and the output matrix is the
  /// target's: EAGLE (arXiv:2401.15077) with a bias and without the norms before attention and output, the module of
  /// DeepSeek-V3 (arXiv:2412.19437) with norms before fc.
  bool wide_attention = false;
  int taps = 1;
  int tap_size = 0;
  bool bias = false;              // of fc
  bool normed_embedding = false;  // before fc; wide: before attention, always
  FeatureNorm feature_norm = FeatureNorm::kNone;
  bool normed_residual = false;  // wide: attention adds to norm(stream)
  int draft_vocab_size = 0;      // wide: tokens that it can propose, rows of its output matrix
};

/// A decoder-only transformer as pure data. Built by one parser per model_type; the transformer knows nothing else
/// about the model.
struct ModelSpec {
  std::string name;  // folder name
  std::string path;  // folder or file it was read from
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int max_positions = 0;
  NormKind norm = NormKind::kRms;  // every norm, but those of latent vectors
  float norm_eps = 1e-5F;
  BlockOrder block_order = BlockOrder::kPreNorm;
  float embedding_scale = 1.0F;  // multiplies embeddings
  float residual_scale = 1.0F;   // multiplies what attention and feed-forward add to the stream
  float logit_scale = 1.0F;      // multiplies logits
  float logit_softcap = 0.0F;    // c > 0: logits become c * tanh(logits / c)
  bool head_bias = false;
  bool tied_embeddings = false;
  Quantization quantization = Quantization::kNone;
  int fp8_block_rows = 128;
  int fp8_block_cols = 128;
  std::vector<LayerSpec> layers;
  int prediction_layers = 0;         // behind them in the checkpoint, left out: drafter mtp opens the first
  int first_layer = 0;               // number of layers[0] in names: a target's own head comes after its layers
  std::optional<FusionSpec> fusion;  // of a draft head
  std::vector<TokenId> stop_tokens;
  std::optional<TokenId> mask_token;
  TensorNames names;

  /// residual_scale, for products that are added to the stream directly; with a sandwich, norms come in between.
  float product_scale() const { return block_order == BlockOrder::kPreNorm ? residual_scale : 1.0F; }
  /// Columns of what attention projects.
  int attention_inputs() const { return fusion && fusion->wide_attention ? 2 * hidden_size : hidden_size; }
  /// Columns of fc.
  int fusion_inputs() const {
    const bool features_alone = fusion->wide_attention || fusion->block_size > 0;
    return (features_alone ? 0 : hidden_size) + fusion->taps * fusion->tap_size;
  }
  /// Values of FusionWeights::feature_norm.
  int feature_norm_size() const {
    if (fusion->feature_norm == FeatureNorm::kNone) return 0;
    return fusion->feature_norm == FeatureNorm::kAfter ? hidden_size : fusion->taps * fusion->tap_size;
  }
  /// Whether the output matrix is that of a draft head's target.
  bool borrows_output() const { return fusion && !fusion->wide_attention; }
  /// Rows of the output matrix.
  int head_rows() const { return fusion && fusion->wide_attention ? fusion->draft_vocab_size : vocab_size; }
};

}  // namespace specmoe::nn
