#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/types.h"

namespace specmoe::nn {

enum class RopeKind { kDefault, kLinear, kDynamic, kLlama3, kYarn };

/// How positions turn heads, with every default resolved. rope_frequencies() gives the angles.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  int rotary_dim = 0;  // leading elements of a head that turn
  double theta = 10000.0;
  double factor = 1.0;
  double original_positions = 0.0;     // llama3, yarn: context before the stretch
  double low_frequency_factor = 1.0;   // llama3
  double high_frequency_factor = 4.0;  // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  bool truncate = true;                // yarn: whole correction dimensions
  double attention_factor = 1.0;       // multiplies cosines and sines

  bool operator==(const RopeSpec&) const = default;
};

/// Grouped-query attention: query head h reads kv head h / (heads / kv_heads).
struct AttentionSpec {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 1.0F;  // multiplies scores
  int window = 0;      // W > 0: position p sees keys at positions > p - W; 0: all
  bool qkv_bias = false;
  bool output_bias = false;
  RopeSpec rope;
};

/// Top-k of the softmax over experts.
struct RouterSpec {
  int experts = 0;
  int experts_per_token = 0;
  bool renormalise = true;  // chosen weights are divided by their sum
};

/// down(silu(gate x) * (up x)), once, or per chosen expert when there is a router.
struct FfnSpec {
  int width = 0;  // outputs of gate and of up, per expert
  bool bias = false;
  std::optional<RouterSpec> router;
};

struct LayerSpec {
  AttentionSpec attention;
  FfnSpec ffn;
};

/// Where a checkpoint keeps each tensor: alternatives, the first that exists is taken. Names come without a leading
/// "model."; {layer} and {expert} stand for numbers. Linear layers are stems, to which .weight and .bias are added.
struct TensorNames {
  using Alternatives = std::vector<std::string>;
  Alternatives embedding, final_norm, head;
  Alternatives attention_norm, query, key, value, output;
  Alternatives ffn_norm, gate, up, down;
  Alternatives router, expert_gate, expert_up, expert_down;
  Alternatives fused_gate_up;  // [experts, 2 * width, hidden], gate rows first
  Alternatives fused_down;     // [experts, hidden, width]
};

/// A decoder-only transformer as pure data: pre-norm blocks, RMS norms, rotary positions. Built by one parser per
/// model_type; the transformer knows nothing else about the model.
struct ModelSpec {
  std::string name;  // folder name
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int max_positions = 0;
  float norm_eps = 1e-5F;
  bool tied_embeddings = false;
  std::vector<LayerSpec> layers;
  std::vector<TokenId> stop_tokens;
  TensorNames names;
};

}  // namespace specmoe::nn
